"""Settings: flags, then ``CISDRIVER_*``, then cisdriver.yml; one name for each in all three.

``--kubernetes-version``, ``CISDRIVER_KUBERNETES_VERSION`` and ``kubernetes_version:`` are the same setting. All of them
are checked together before anything starts, and an error names the flag, the variable, or the file and line.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cisdriver import settings_file
from cisdriver.errors import UsageError
from cisdriver.settings_file import Location, SettingsFile

PREFIX = "CISDRIVER_"
DEFAULT_FILE = "cisdriver.yml"
#: Set by the driver for the processes it starts; never settings.
INTERNAL = ("CISDRIVER_EVENTS",)


def _names(value: Any) -> Any:
    """A list of names: YAML writes ``3.3`` and ``4`` as numbers, and one name without a list."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, list):
        return [str(item) if isinstance(item, int | float) else item for item in value]
    return value


def _text(value: Any) -> Any:
    """``kubernetes_version: 1.33`` is a number to YAML."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _cidr(value: str) -> str:
    """An IPv4 network as a security group's rule has it; one address is a network of one."""
    return str(ipaddress.IPv4Network(value))


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Cidrs = Annotated[tuple[Annotated[str, AfterValidator(_cidr)], ...], BeforeValidator(_names)]
AwsId = Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]{8,17}$")]
Image = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,39}=)?ami-[0-9a-f]{8,17}$")]
Arn = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:(user|role)/[\w+=,.@/-]+$")]
InstanceType = Annotated[str, Field(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")]


class Settings(BaseModel):
    """Every setting of every command. None: not set, so that the role's own default holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # What to check against
    benchmark: Text | None = None
    level: Annotated[int, Field(ge=1, le=2)] | None = None
    profile: Literal["eks", "server"] | None = None
    only: Names = ()
    skip: Names = ()
    strict: Names = ()
    values: dict[str, Any] = Field(default_factory=dict)
    tags: Names = ()
    skip_tags: Names = ()
    verify_packages: bool = False

    # Which machines
    host: Names = ()
    inventory: Path | None = None
    limit: Text | None = None
    private_key: Path | None = None

    # How to bake
    sandbox: bool = False
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None
    base: Text | None = None
    base_owner: Text | None = None
    kubernetes_version: Annotated[str, BeforeValidator(_text), Field(pattern=r"^1\.\d{2}$")] | None = None
    architecture: Literal["x86_64", "arm64"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9()\[\] ./'@_-]{3,128}$")] | None = None
    instance_type: InstanceType | None = None
    subnet_id: AwsId | None = None
    ssh_source_cidr: Cidrs = ()
    session_manager: bool = False
    encrypt: bool | None = None
    kms_key_id: Text | None = None
    publish_parameter: Annotated[str, Field(pattern=r"^/[a-zA-Z0-9_.\-/]+$")] | None = None
    partitions: bool | None = None
    partitions_size: Annotated[int, Field(ge=20, le=16384)] | None = None
    keep_failed: bool = False
    tag: dict[str, Annotated[str, BeforeValidator(_text)]] = Field(default_factory=dict)

    # Which cluster, and how to deploy it
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,49}$")] = "cisdriver"
    image: Annotated[tuple[Image, ...], BeforeValidator(_names)] = ()
    baseline: bool = False
    existing: bool = False
    vpc_id: AwsId | None = None
    subnet_ids: Annotated[tuple[AwsId, ...], BeforeValidator(_names)] = ()
    nat: Literal["one", "three", "none"] | None = None
    public_access_cidr: Cidrs = ()
    admin: Annotated[tuple[Arn, ...], BeforeValidator(_names)] = ()
    node_type: Annotated[tuple[InstanceType, ...], BeforeValidator(_names)] = ()
    node_count: Annotated[int, Field(ge=1, le=100)] | None = None
    workload_image: Text | None = None
    kube_bench_image: Text | None = None

    # How to run
    run_dir: Path = Path(".cisdriver")
    verbose: Annotated[int, Field(ge=0, le=4)] = 0


_KNOWN = tuple(Settings.model_fields)
_LISTS = {name for name, field in Settings.model_fields.items() if get_origin(field.annotation) is tuple}
_MAPPINGS = {name for name, field in Settings.model_fields.items() if "dict" in str(field.annotation)}


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """Merge the three sources and check them whole. Raises UsageError listing everything that is wrong.

    ``flags`` holds what was given on the command line: None and an empty tuple count as not given.
    """
    file = _file(config)
    environment = _environment(environ)
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    for name in _MAPPINGS & set(given):
        given[name] = _pairs(_flag(name), given[name])
    problems = [_unknown_in_file(file, key) for key in file.values if key not in _KNOWN]
    problems += [problem for name in environ if (problem := _unknown_variable(name))]
    merged: dict[str, Any] = {key: value for key, value in file.values.items() if key in _KNOWN}
    merged.update(environment)
    merged.update(given)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        for item in error.errors():
            source = _source(tuple(item["loc"]), given, environment, file)
            problems.append(f"{source}: {_explain(item)}")
    if problems:
        raise UsageError("\n".join(problems), "Correct this and start again; nothing was started.")
    return settings


def _file(config: Path | None) -> SettingsFile:
    if config is not None:
        return settings_file.read(config)
    default = Path(DEFAULT_FILE)
    return settings_file.read(default) if default.exists() else SettingsFile(default)


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Settings from ``CISDRIVER_*``. An empty variable counts as not set; lists are separated by commas."""
    found: dict[str, Any] = {}
    for name in _KNOWN:
        variable = PREFIX + name.upper()
        text = environ.get(variable, "")
        if not text:
            continue
        if name in _LISTS:
            found[name] = _split(text)
        elif name in _MAPPINGS:
            found[name] = _pairs(variable, _split(text))
        else:
            found[name] = text
    return found


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(source: str, items: Iterable[str]) -> dict[str, Any]:
    """``key=value`` texts as a mapping; for ``values`` numbers, lists and mappings are read as YAML has them."""
    pairs: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"{source}: expected key=value, found {item!r}", f"Write it as {source} key=value.")
        pairs[key] = _value(source, value) if source in (_flag("values"), f"{PREFIX}VALUES") else value
    return pairs


def _value(source: str, text: str) -> Any:
    if not text.lstrip("-").isdigit() and not text.startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {text!r}", "Quote it for the shell.") from error


def _flag(name: str) -> str:
    return {"values": "--value"}.get(name, "--" + name.replace("_", "-"))


def _unknown_in_file(file: SettingsFile, key: str) -> str:
    return f"{file.where((key,))}: unknown setting {key!r}{suggest(key, _KNOWN)}"


def _unknown_variable(name: str) -> str:
    """A variable that is nearly one of ours: to ignore it would quietly do something else than was asked."""
    bare = name.removeprefix(PREFIX).lower()
    if not name.startswith(PREFIX) or name in INTERNAL or bare in _KNOWN:
        return ""
    guess = suggest(bare, _KNOWN, upper=True)
    return f"unknown variable {name}{guess}" if guess else ""


def suggest(name: str, known: Iterable[str], upper: bool = False) -> str:
    """``; did you mean 'level'?``, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.65)
    if not near:
        return ""
    return f"; did you mean {PREFIX + near[0].upper()}?" if upper else f"; did you mean {near[0]!r}?"


def _source(location: Location, given: Mapping[str, Any], environment: Mapping[str, Any], file: SettingsFile) -> str:
    name = str(location[0])
    if name in given:
        return _flag(name)
    if name in environment:
        return PREFIX + name.upper()
    return f"{file.where(location)}: {'.'.join(str(part) for part in location)}"


_EXPECTED = {
    "level": "1 or 2",
    "region": "a region such as eu-central-1",
    "kubernetes_version": "a version such as 1.33",
    "name": "an AMI name of 3 to 128 letters, digits and ()[] ./'@_-",
    "instance_type": "an instance type such as m6i.large",
    "cluster": "a name of at most 50 letters, digits and hyphens that begins with a letter",
    "image": "an AMI id such as ami-0123456789abcdef0, or GROUP=ami-0123456789abcdef0",
    "vpc_id": "an id such as vpc-0123456789abcdef0",
    "subnet_ids": "ids such as subnet-0123456789abcdef0",
    "public_access_cidr": "IPv4 networks such as 203.0.113.0/24",
    "admin": "ARNs of roles or users such as arn:aws:iam::123456789012:role/Admin",
    "node_type": "instance types such as m6i.large",
    "node_count": "1 to 100 nodes",
    "ssh_source_cidr": "IPv4 networks such as 10.20.0.0/16",
    "partitions_size": "20 to 16384 GiB",
    "subnet_id": "an id such as subnet-0123456789abcdef0",
    "publish_parameter": "an SSM parameter name such as /images/eks/hardened",
}


def _explain(item: Mapping[str, Any]) -> str:
    """One pydantic error as ``expected ..., found ...``."""
    name, found = str(item["loc"][0]), item["input"]
    field = Settings.model_fields[name]
    choices = [choice for part in get_args(field.annotation) for choice in get_args(part) if isinstance(choice, str)]
    if item["type"] == "literal_error" and choices:
        return f"expected {' or '.join(choices)}, found {found!r}{suggest(str(found), choices)}"
    if name in _EXPECTED:
        return f"expected {_EXPECTED[name]}, found {found!r}"
    message = str(item["msg"])
    return f"{message[:1].lower()}{message[1:]}, found {found!r}"
