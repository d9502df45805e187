"""Make the RPM database of the node and the repository it installs from; runs inside the node, as root.

usage: packages.py SOURCE, with SOURCE/packages.yml and SOURCE/content/<package>/ (files of packages to be installed).

One run of rpmbuild makes every package, from one spec with a sub-package each: a run per package would take minutes. A
package that is present owns the real files that packages.yml names for it; one that is not brings the programs taken
from a Debian archive and the texts in SOURCE/content.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

WORK = Path("/var/tmp/packages")
ROOT = WORK / "root"
DEBS = Path("/usr/share/standin/debs")
REPOSITORY = Path("/usr/share/standin/repo")
UNSIGNED = Path("/usr/share/standin/repo-unsigned")
KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2023")
SIGNER = "Amazon Linux <amazon-linux@amazon.com>"
HEAD = """Name: standin
Version: 1
Release: 1
Summary: Stand-in packages
License: Apache-2.0
BuildArch: noarch
%description
Stand-in packages.

%install
cp -a /var/tmp/packages/root/. %{buildroot}/

"""
SETTINGS = {
    "_rpmdir": f"{WORK}/rpms",
    "_topdir": f"{WORK}/top",
    "_binaries_in_noarch_packages_terminate_build": "0",
    "_unpackaged_files_terminate_build": "0",
    "__os_install_post": "%{nil}",
    "debug_package": "%{nil}",
    "_build_id_links": "none",
    "_binary_payload": "w1.gzdio",
}


@dataclass
class Package:
    """One package; packages.yml explains the fields."""

    name: str
    present: bool
    version: str = "1.0-1.amzn2023"
    requires: list[str] = field(default_factory=list)
    provides: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    dirs: dict[str, str] = field(default_factory=dict)
    from_deb: dict[str, dict[str, str]] = field(default_factory=dict)
    service: str = ""


def run(*command: str, **options: Any) -> None:
    """Run a program quietly; raises CalledProcessError when it fails."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def load(source: Path) -> list[Package]:
    """Read packages.yml. A key it does not know is an error."""
    data = yaml.safe_load((source / "packages.yml").read_text())
    detail = data["detail"]
    return [
        Package(name=name, present=group == "present", **(detail.get(name) or {}))
        for group in ("present", "available")
        for name in data[group].split()
    ]


def in_root(path: str) -> Path:
    """The place of a path of the node in the build root; its parents are made."""
    place = ROOT / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def collect(package: Package, source: Path) -> list[str]:
    """Copy the files of a package into the build root; returns their paths on the node."""
    if package.present:
        found = []
        for pattern in package.files:
            matches = sorted(glob.glob(pattern))  # noqa: PTH207 - patterns are absolute
            if not matches:
                sys.exit(f"packages.yml: {package.name}: no file matches {pattern}")
            found += matches
        for path in found:
            run("cp", "-a", path, str(in_root(path)))
        return found
    return [*_made_directories(package), *_debian_files(package), *_texts(source / "content" / package.name)]


def _made_directories(package: Package) -> list[str]:
    for path, mode in package.dirs.items():
        place = in_root(path)
        place.mkdir(exist_ok=True)
        place.chmod(int(mode, 8))
    return list(package.dirs)


def _debian_files(package: Package) -> list[str]:
    found: list[Path] = []
    for archive, files in package.from_deb.items():
        (deb,) = DEBS.glob(f"{archive}_*.deb")
        tree = WORK / f"deb-{archive}"
        run("dpkg-deb", "-x", str(deb), str(tree))
        for origin, target in files.items():
            place = in_root(target)
            run("cp", "-a", str(tree / origin), str(place))
            found += sorted(place.iterdir()) if place.is_dir() else [place]
    return [f"/{place.relative_to(ROOT)}" for place in found]


def _texts(content: Path) -> list[str]:
    """Programs in bin and sbin are 0755, everything else 0644: a checkout or a wheel may not keep modes."""
    found = []
    for text in sorted(entry for entry in content.rglob("*") if entry.is_file()):
        target = f"/{text.relative_to(content)}"
        place = in_root(target)
        shutil.copyfile(text, place)
        place.chmod(0o755 if place.parent.name in ("bin", "sbin") else 0o644)
        found.append(target)
    return found


def listed(path: str) -> str:
    """The line of %files for a path of the build root; rpmbuild by itself would give every file to root."""
    place = in_root(path)
    owner = "%attr(-, root, root)" if place.is_symlink() else f"%attr(-, {place.owner()}, {place.group()})"
    if place.is_dir() and not place.is_symlink():
        return f"{owner} %dir {path}"
    return f"{owner} %config(noreplace) {path}" if path.startswith("/etc/") else f"{owner} {path}"


def sub_package(package: Package, paths: list[str]) -> str:
    """The part of the spec that makes one package."""
    name = package.name
    version, release = package.version.rsplit("-", 1)
    lines = [f"%package -n {name}", f"Summary: {name}", f"Version: {version}", f"Release: {release}", "AutoReqProv: no"]
    lines += [f"Requires: {value}" for value in package.requires]
    lines += [f"Provides: {value}" for value in package.provides]
    lines += [f"%description -n {name}", "Stand-in of the package of Amazon Linux 2023.", f"%files -n {name}"]
    lines += [listed(path) for path in paths]
    if units := package.service:
        lines += [f"%post -n {name}", f"[ $1 -gt 1 ] || systemctl preset {units} >/dev/null 2>&1 || :"]
        lines += [f"%preun -n {name}", f"[ $1 -gt 0 ] || systemctl --now disable {units} >/dev/null 2>&1 || :"]
        lines += [f"%postun -n {name}", "systemctl daemon-reload >/dev/null 2>&1 || :"]
    return "\n".join(lines) + "\n\n"


def build(packages: list[Package], source: Path) -> None:
    """Build every package into the repository."""
    ROOT.mkdir(parents=True)
    spec = WORK / "standin.spec"
    spec.write_text(HEAD + "".join(sub_package(package, collect(package, source)) for package in packages))
    define = [part for key, value in SETTINGS.items() for part in ("--define", f"{key} {value}")]
    done = subprocess.run(["rpmbuild", "-bb", *define, str(spec)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("rpmbuild failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    (REPOSITORY / "Packages").mkdir(parents=True)
    for rpm in (WORK / "rpms/noarch").iterdir():
        shutil.move(rpm, REPOSITORY / "Packages")


def publish() -> None:
    """Sign the packages and the metadata with a key made here, and give the node its public half."""
    home = WORK / "gnupg"
    home.mkdir(mode=0o700)
    os.environ["GNUPGHOME"] = str(home)
    make = ("--quick-gen-key", SIGNER, "rsa2048", "sign", "never")
    run("gpg", "--batch", "--passphrase", "", *make, stderr=subprocess.DEVNULL)
    KEY.parent.mkdir(parents=True, exist_ok=True)
    KEY.write_bytes(subprocess.run(["gpg", "--armor", "--export", SIGNER], check=True, capture_output=True).stdout)
    rpms = sorted(str(rpm) for rpm in (REPOSITORY / "Packages").iterdir())
    signing = ("--define", f"_gpg_name {SIGNER}", "--define", "__gpg /usr/bin/gpg", "--define", f"_gpg_path {home}")
    run("rpmsign", "--addsign", *signing, *rpms, stderr=subprocess.DEVNULL)
    run("createrepo_c", "-q", "--no-database", str(REPOSITORY))
    # The same without signed metadata, as releases before 2023.11.20260406 are.
    UNSIGNED.mkdir()
    (UNSIGNED / "Packages").symlink_to(REPOSITORY / "Packages")
    shutil.copytree(REPOSITORY / "repodata", UNSIGNED / "repodata")
    run("gpg", "--batch", "--detach-sign", "--armor", str(REPOSITORY / "repodata/repomd.xml"))
    run("gpgconf", "--kill", "all")


def seed(packages: list[Package]) -> None:
    """Enter the packages that are present, without touching their files."""
    shutil.rmtree("/var/lib/rpm", ignore_errors=True)
    run("rpm", "--initdb")
    run("rpm", "--import", str(KEY))
    rpms = [f"{REPOSITORY}/Packages/{one.name}-{one.version}.noarch.rpm" for one in packages if one.present]
    flags = ("--force-debian", "--justdb", "--noscripts", "--nodeps", "-i")
    run("rpm", *flags, *rpms, stderr=subprocess.DEVNULL)


def main() -> None:
    """Build, publish, seed, and leave nothing else behind."""
    source = Path(sys.argv[1])
    packages = load(source)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    build(packages, source)
    publish()
    seed(packages)
    shutil.rmtree(WORK)
    shutil.rmtree(DEBS)


if __name__ == "__main__":
    main()
