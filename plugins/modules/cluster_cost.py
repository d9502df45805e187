#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module cluster_cost: what a cluster costs per hour, by AWS's price list."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_cost
author: The cisdriver authors
short_description: Price what a cluster consists of, per hour
description:
  - Asks AWS's price list for the on-demand price of each item in the region.
  - A price list that cannot be reached, or lacks an item, is no error; the figures are missing then, and RV(cost.note)
    says so.
  - What depends on use (traffic, logs, data through NAT gateways and endpoints) is not part of it.
options:
  items:
    description:
      - What to price. The kinds are C(cluster), C(cluster_extended) (what extended support costs on top), C(instance)
        (C(type) is an instance type), C(volume) (C(type) is a volume type, C(count) in GiB), C(nat_gateway),
        C(public_ipv4), C(endpoint) (an interface endpoint in one zone).
    type: list
    elements: dict
    required: true
    suboptions:
      what: {description: The words for it., type: str, required: true}
      kind:
        description: Kind of item.
        type: str
        required: true
        choices: [cluster, cluster_extended, instance, volume, nat_gateway, public_ipv4, endpoint]
      type: {description: Type of instance or volume., type: str, default: ""}
      count: {description: How many., type: int, required: true}
  partition:
    description: The partition of the region, which decides where its price list is.
    type: str
    default: aws
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Price two nodes
  cisdriver.amazon_linux.cluster_cost:
    items:
      - {what: nodes m6i.large, kind: instance, type: m6i.large, count: 2}
"""

RETURN = r"""
cost:
  description: The bill; RV(cost.per_hour) and those of the lines are null where there is no figure.
  returned: always
  type: dict
  sample:
    currency: USD
    per_hour: 0.23
    lines: [{what: nodes m6i.large, count: 2, per_hour: 0.23}]
    note: ""
"""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

#: Where the price list of a partition is asked, and the currency it has. The others have none that their own
#: credentials reach.
PRICE_LISTS = {"aws": ("us-east-1", "USD"), "aws-cn": ("cn-northwest-1", "CNY")}
#: The price list has storage by the month.
HOURS_PER_MONTH = 730
#: Kind to service, filters beside the region, and a pattern of the usage type without the prefix most regions have.
PRODUCTS: dict[str, tuple[str, dict[str, str], str]] = {
    "cluster": ("AmazonEKS", {}, "AmazonEKS-Hours:perCluster"),
    "cluster_extended": ("AmazonEKS", {}, "AmazonEKS-Hours:extendedSupport"),
    "instance": (
        "AmazonEC2",
        {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"},
        r"BoxUsage:.+",
    ),
    "volume": ("AmazonEC2", {"productFamily": "Storage"}, r"EBS:VolumeUsage(\.\w+)?"),
    "nat_gateway": ("AmazonEC2", {"productFamily": "NAT Gateway"}, "NatGateway-Hours"),
    "public_ipv4": ("AmazonVPC", {}, "PublicIPv4:InUseAddress"),
    "endpoint": ("AmazonVPC", {"productFamily": "VpcEndpoint"}, "VpcEndpoint-Hours"),
}
_TYPE_FILTER = {"instance": "instanceType", "volume": "volumeApiName"}


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "items": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "what": {"type": "str", "required": True},
                    "kind": {"type": "str", "required": True, "choices": sorted(PRODUCTS)},
                    "type": {"type": "str", "default": ""},
                    "count": {"type": "int", "required": True},
                },
            },
            "partition": {"type": "str", "default": "aws"},
        },
        supports_check_mode=True,
    )
    where = PRICE_LISTS.get(module.params["partition"])
    if where is None:
        note = f"AWS's price list does not cover the partition {module.params['partition']}: no figures"
        module.exit_json(changed=False, cost=bill(module.params["items"], {}, "USD", note))
        return
    # Figures are a help, not worth a long wait.
    client = module.client("pricing", region=where[0], config=Config(connect_timeout=10, retries={"max_attempts": 2}))
    prices, note = ask(client, module.region, where[1], module.params["items"])
    module.exit_json(changed=False, cost=bill(module.params["items"], prices, where[1], note))


Wanted = tuple[str, str]


def ask(client: Any, region: str, currency: str, items: list[dict[str, Any]]) -> tuple[dict[Wanted, float], str]:
    """Price per hour of one, by kind and type; and what there is to say."""
    found: dict[Wanted, float] = {}
    missing = []
    for wanted in dict.fromkeys((item["kind"], item["type"]) for item in items):
        try:
            price = _price(client, region, currency, *wanted)
        except (BotoCoreError, ClientError) as error:
            return found, f"the price list did not answer, so figures are missing: {error}"
        if price is None:
            missing.append(" ".join(filter(None, wanted)))
        else:
            found[wanted] = price
    return found, f"the price list has no price for {', '.join(missing)} in {region}" if missing else ""


def bill(items: list[dict[str, Any]], prices: dict[Wanted, float], currency: str, note: str) -> dict[str, Any]:
    """The lines and their sum; the sum is of all lines, or null."""
    lines = []
    for item in items:
        price = prices.get((item["kind"], item["type"]))
        per_hour = None if price is None else round(price * item["count"], 4)
        lines.append({"what": item["what"], "count": item["count"], "per_hour": per_hour})
    known = [line["per_hour"] for line in lines if line["per_hour"] is not None]
    total = round(sum(known), 4) if len(known) == len(lines) else None
    return {"currency": currency, "per_hour": total, "lines": lines, "note": note}


def _price(client: Any, region: str, currency: str, kind: str, type_: str) -> float | None:
    """The on-demand price of one for an hour; None when the list has none."""
    service, filters, usage = PRODUCTS[kind]
    fields = {"regionCode": region, **filters, **({_TYPE_FILTER[kind]: type_} if kind in _TYPE_FILTER else {})}
    # Whole: RegionalNatGateway-Hours and the like are other products.
    pattern = re.compile(rf"([A-Z0-9]+-)?{usage}")
    for product in _products(client, service, fields):
        if pattern.fullmatch(product["product"]["attributes"].get("usagetype", "")):
            for dimension in _dimensions(product):
                price = float(dimension["pricePerUnit"].get(currency, 0))
                if price > 0:
                    return price / HOURS_PER_MONTH if dimension["unit"] == "GB-Mo" else price
    return None


def _products(client: Any, service: str, fields: dict[str, str]) -> Iterator[dict[str, Any]]:
    wanted = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
    for page in client.get_paginator("get_products").paginate(ServiceCode=service, Filters=wanted):
        for text in page["PriceList"]:
            yield json.loads(text)


def _dimensions(product: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for offer in product["terms"].get("OnDemand", {}).values():
        yield from offer["priceDimensions"].values()


if __name__ == "__main__":
    main()
