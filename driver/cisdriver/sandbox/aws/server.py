"""The process that is AWS: started by ``Sandbox``, gone when ``Sandbox`` is.

Reads one JSON line (``Options``) from stdin, answers one on stdout, ``{"url"}`` or ``{"error"}``, and serves until
stdin closes, which it does when the owner closes it or dies, however it dies. One that is kept serves until it is told
to end, or has been asked nothing for long. Runs in a session of its own, so that the Ctrl-C that stops a bake does not
take AWS away before the bake has swept up.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What the owner asks for. ``machines`` names a class as ``module:Class``; ``settings`` are its arguments.

    ``idle``: seconds without a request after which one that is kept ends; None for one that its owner ends.
    """

    directory: str
    region: str
    ssh_port: int
    machines: str
    settings: dict[str, Any]
    idle: float | None


def main() -> None:
    options = Options(**json.loads(sys.stdin.readline()))
    directory = Path(options.directory)
    _configure_moto(directory)
    # After the environment is set: moto reads it when it is imported.
    from werkzeug.serving import make_server

    from .layer import Layer
    from .machines import Machines
    from .world import World

    module, _, name = options.machines.partition(":")
    try:
        machines: Machines = getattr(importlib.import_module(module), name)(options.ssh_port, **options.settings)
    except Exception as error:  # the owner waits for one line, then shows this one
        print(json.dumps({"error": str(error)}), flush=True)
        raise
    layer = Layer(_moto(), World(options.region, machines), directory / "requests.jsonl")
    server = make_server("127.0.0.1", 0, layer, threaded=True, request_handler=_quiet_handler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
        if options.idle is None:
            sys.stdin.read()
        elif sys.stdin.readline():  # the owner has noted where we are; one that died before can never find us again
            layer.wait(options.idle)
    finally:
        server.shutdown()
        machines.close()
        # The owner does so too, unless it was killed.
        shutil.rmtree(directory, ignore_errors=True)


def _configure_moto(directory: Path) -> None:
    from .images import BASE_IMAGES

    path = directory / "images.json"
    path.write_text(json.dumps([image.moto() for image in BASE_IMAGES]), encoding="utf-8")
    os.environ.update(
        MOTO_AMIS_PATH=str(path),
        MOTO_ENABLE_AMI_VALIDATION="true",
        MOTO_ENABLE_KEYPAIR_VALIDATION="true",
        MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="true",
        MOTO_IAM_LOAD_MANAGED_POLICIES="true",
        INITIAL_NO_AUTH_ACTION_COUNT="inf",
    )


def _moto() -> Any:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def _quiet_handler() -> Any:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Quiet(MotoRequestHandler):
        def log(self, *_: Any) -> None:
            """The journal has every request."""

    return Quiet


def _end(number: int, _frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
