"""cisdriver verify."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("verify")
@options.nodes
@options.running
def command(as_json: bool, **flags: Any) -> None:
    """Verify that machines still work as nodes of Kubernetes, and change nothing.

    Looks at what kubelet, containerd, the network plugin and those who administer the node rely on, now and at the
    next boot, and logs in a second time. Ends with exit code 6 when a check fails or could not look, or when a node is
    not reached.

    \b
    Example:
      cisdriver verify --host ec2-user@10.0.0.5
    """
    settings = options.settings(flags)
    from cisdriver import nodes, screens

    with screens.ended(as_json, settings.run_dir):
        nodes.verify(settings, as_json)
