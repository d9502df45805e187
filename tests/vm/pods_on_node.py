"""Runs on the node, as root: starts and stops pods as kubelet would have them started, with containerd and CNI plugins.

Usage: python3 - up|down HOST_PORT < this file. ``up`` prints {name: address} as JSON. Pod ``a`` is mapped to HOST_PORT.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

BUSYBOX = Path("/run/standin/busybox")
IMAGE = "localhost/standin/pod:1"
WORK = Path("/run/standin/pods")
PODS = ("a", "b")
PORT = 8080
CTR = ("ctr", "-n", "k8s.io")
#: Where the plugin of the cluster puts them when the node joins; until then the stand-in has them ready.
PLUGINS = next(path for path in (Path("/opt/cni/bin"), Path("/usr/libexec/standin/cni")) if (path / "bridge").exists())
BRIDGE = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "subnet": "10.88.0.0/24",
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{WORK}/addresses",
    },
}
PORTMAP = {"cniVersion": "0.4.0", "name": "pods", "type": "portmap", "capabilities": {"portMappings": True}}


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {(done.stderr or done.stdout).decode()}")
    return done.stdout


def add(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def archive(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, (content, mode) in files.items():
            add(tar, name, content, mode)
    return stream.getvalue()


def import_image():
    """An image of one layer, made here: there is no registry."""
    files = {"bin/busybox": (BUSYBOX.read_bytes(), 0o755), "www/index.html": (b"", 0o644)}
    layer = archive(files)
    layers = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layers}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    files = {"layer.tar": layer, "config.json": config, "manifest.json": manifest}
    run(*CTR, "images", "import", "-", input=archive({name: (text, 0o644) for name, text in files.items()}))


def plugin(config, command, pod):
    environment = {
        "PATH": "/usr/sbin:/usr/bin",
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "standin-" + pod,
        "CNI_NETNS": "/run/netns/" + pod,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PLUGINS),
    }
    said = run(str(PLUGINS / config["type"]), input=json.dumps(config).encode(), env=environment)
    return json.loads(said) if said else {}


def portmap(host_port, result):
    mapping = [{"hostPort": host_port, "containerPort": PORT, "protocol": "tcp"}]
    return dict(PORTMAP, runtimeConfig={"portMappings": mapping}, prevResult=result)


def up(host_port):
    WORK.mkdir(exist_ok=True)
    import_image()
    addresses = {}
    for pod in PODS:
        run("ip", "netns", "add", pod)
        result = plugin(BRIDGE, "ADD", pod)
        if pod == "a":
            plugin(portmap(host_port, result), "ADD", pod)
        addresses[pod] = result["ips"][0]["address"].split("/")[0]
        serve = f"echo pod {pod} > /www/index.html; exec /bin/busybox httpd -f -p {PORT} -h /www"
        namespace = "--with-ns=network:/run/netns/" + pod
        run(*CTR, "run", "--detach", namespace, IMAGE, pod, "/bin/busybox", "sh", "-c", serve)
    print(json.dumps(addresses))


def down(host_port):
    for pod in PODS:
        run(*CTR, "tasks", "delete", "--force", pod)
        run(*CTR, "containers", "delete", pod)
        if pod == "a":
            plugin(portmap(host_port, {"cniVersion": "0.4.0", "ips": []}), "DEL", pod)
        plugin(BRIDGE, "DEL", pod)
        run("ip", "netns", "delete", pod)
    run(*CTR, "images", "remove", "--sync", IMAGE)
    run("ip", "link", "delete", "cni0")


{"up": up, "down": down}[sys.argv[1]](int(sys.argv[2]))
