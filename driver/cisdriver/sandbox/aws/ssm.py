"""What moto's SSM lacks: the public parameters of EKS, and which instances report to it."""

from __future__ import annotations

from datetime import UTC, datetime

from .images import PARAMETERS, RELEASE
from .wire import Call
from .world import AwsError, Before, Reply, World

_PUBLIC = "/aws/service/eks/"


def get_parameter(_world: World, call: Call) -> Reply | None:
    name = call.parameters["Name"]
    if not name.startswith(_PUBLIC):
        return None
    if name not in PARAMETERS:
        raise AwsError(400, "ParameterNotFound", "")  # AWS, too, says no more than this
    arn = f"arn:aws:ssm:{call.region}::parameter{name}"
    released = datetime.strptime(RELEASE, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    value = {"Name": name, "Type": "String", "Value": PARAMETERS[name], "Version": 1, "ARN": arn, "DataType": "text"}
    return {"Parameter": {**value, "LastModifiedDate": released}}


def get_parameters(world: World, call: Call) -> Reply | None:
    names = call.parameters["Names"]
    if not any(name.startswith(_PUBLIC) for name in names):
        return None
    if not all(name.startswith(_PUBLIC) for name in names):
        raise AwsError(501, "NotImplemented", "the sandbox does not mix EKS's public parameters with own ones")
    found = []
    for name in (name for name in names if name in PARAMETERS):
        one = get_parameter(world, Call("ssm", "GetParameter", call.region, {"Name": name}))
        assert one is not None
        found.append(one["Parameter"])
    return {"Parameters": found, "InvalidParameters": [name for name in names if name not in PARAMETERS]}


def describe_instance_information(world: World, call: Call) -> Reply | None:
    """Every machine that runs is Online: the stock EKS image starts amazon-ssm-agent."""
    wanted: set[str] = set()
    for name, values in _filters(call):
        if name != "InstanceIds":
            raise AwsError(501, "NotImplemented", f"the sandbox knows the filter InstanceIds, not {name}")
        wanted |= set(values)
    running = sorted(set(world.machines.addresses()) & wanted if wanted else world.machines.addresses())
    return {
        "InstanceInformationList": [
            {
                "InstanceId": identity,
                "PingStatus": "Online",
                "PlatformType": "Linux",
                "PlatformName": "Amazon Linux",
                "ResourceType": "EC2Instance",
            }
            for identity in running
        ]
    }


def _filters(call: Call) -> list[tuple[str, list[str]]]:
    new = [(one["Key"], one["Values"]) for one in call.parameters.get("Filters", [])]
    old = [(one["key"], one["valueSet"]) for one in call.parameters.get("InstanceInformationFilterList", [])]
    return new + old


BEFORE: dict[tuple[str, str], Before] = {
    ("ssm", "GetParameter"): get_parameter,
    ("ssm", "GetParameters"): get_parameters,
    ("ssm", "DescribeInstanceInformation"): describe_instance_information,
}
