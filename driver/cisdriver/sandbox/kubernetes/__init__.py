"""A Kubernetes API server of our own on loopback: what a manifest meets there, without containers.

``docs/sandbox.md`` tells what it does and what it cannot show.
"""

from .nodes import NodeFacts
from .server import ApiServer

__all__ = ["ApiServer", "NodeFacts"]
