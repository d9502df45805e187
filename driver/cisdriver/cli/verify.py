"""cisdriver verify."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("verify")
@options.nodes
@click.option(
    "--cluster",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Run workloads on a cluster instead, by default on the one that deploy makes.",
)
@options.baseline
@options.workloads
@options.account
@options.running
def command(as_json: bool, cluster: str | None, **flags: Any) -> None:
    """Verify that nodes still work, or a whole cluster.

    Of a machine, looks at what kubelet, containerd, the network plugin and those who administer the node rely on, now
    and at the next boot, and logs in a second time; it changes nothing. Of a cluster, runs workloads on every node
    group that prove DNS, networks, volumes, autoscaling and more, and removes them. Ends with exit code 6 when
    anything fails or could not look.

    \b
    Example:
      cisdriver verify --host ec2-user@10.0.0.5
      cisdriver verify --cluster prod --baseline
    """
    settings = options.settings({**flags, "cluster": cluster or None})
    from cisdriver import nodes, screens, workloads

    with screens.ended(as_json, settings.run_dir):
        if cluster is None:
            nodes.verify(settings, as_json)
        else:
            workloads.verify(settings, as_json)
