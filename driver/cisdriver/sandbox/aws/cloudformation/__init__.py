"""CloudFormation for the sandbox: stacks of the types that our templates use, made by the sandbox's own API.

moto's does not know EKS, cannot delete route tables, calls every update a change and fails where AWS rolls back. Here
a stack works as the CloudFormation user guide says: in the order of dependencies, with events, change sets, roll-back
and clean-up. Each resource is made by the calls that AWS's handlers make, over loopback, so that they are checked
against botocore's models and recorded like anybody's. What is not served is refused before anything is made.
"""

from __future__ import annotations

from ..world import Before
from . import change_sets, operations

BEFORE: dict[tuple[str, str], Before] = {
    ("cloudformation", name): run for name, run in {**operations.OPERATIONS, **change_sets.OPERATIONS}.items()
}
