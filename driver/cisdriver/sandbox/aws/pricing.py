"""The price list, with sample prices: round figures, right in their order of magnitude and in nothing else.

Each product carries the attribute ``sample``, which AWS's do not have. Services, families and usage types are those of
AWS's price list; the prefix of usage types is made of the region's name and may be written otherwise there.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from .wire import Call
from .world import AwsError, Before, Reply, World

_DATE = "2026-11-12T00:00:00Z"
_PER_CORE = 0.05
_VOLUMES = {"gp2": 0.1, "gp3": 0.08, "io1": 0.13, "io2": 0.13, "st1": 0.045, "sc1": 0.015}
#: Service, product family, usage type, unit, price.
_PLAIN = (
    ("AmazonEKS", "Compute", "AmazonEKS-Hours:perCluster", "Hours", 0.1),
    ("AmazonEKS", "Compute", "AmazonEKS-Hours:extendedSupport", "Hours", 0.5),
    ("AmazonEC2", "NAT Gateway", "NatGateway-Hours", "Hrs", 0.05),
    ("AmazonEC2", "NAT Gateway", "NatGateway-Bytes", "GB", 0.05),
    ("AmazonVPC", "VpcEndpoint", "VpcEndpoint-Hours", "Hrs", 0.01),
    ("AmazonVPC", "VpcEndpoint", "VpcEndpoint-Bytes", "GB", 0.01),
    ("AmazonVPC", "VpcPublicIPv4Address", "PublicIPv4:InUseAddress", "Hrs", 0.005),
    ("AmazonVPC", "VpcPublicIPv4Address", "PublicIPv4:IdleAddress", "Hrs", 0.005),
)
_ON_DEMAND = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
_PAGE = 100


def get_products(_world: World, call: Call) -> Reply:
    """Products of a service that have all attributes asked for. The region has to be one of them."""
    wanted = call.parameters
    filters = {one["Field"]: one["Value"] for one in wanted.get("Filters", [])}
    if any(one["Type"] != "TERM_MATCH" for one in wanted.get("Filters", [])) or "regionCode" not in filters:
        raise AwsError(400, "InvalidParameterException", "the sandbox serves filters TERM_MATCH, regionCode among them")
    currency = "CNY" if filters["regionCode"].startswith("cn-") else "USD"
    found = [
        json.dumps(_product(attributes, unit, price, currency))
        for attributes, unit, price in _catalogue(filters["regionCode"])
        if filters.items() <= attributes.items() and attributes["servicecode"] == wanted["ServiceCode"]
    ]
    start = int(wanted.get("NextToken") or 0)
    end = start + int(wanted.get("MaxResults") or _PAGE)
    more = {"NextToken": str(end)} if end < len(found) else {}
    return {"FormatVersion": "aws_v1", "PriceList": found[start:end], **more}


def _catalogue(region: str) -> Iterator[tuple[dict[str, str], str, float]]:
    """Attributes, unit and price of every product in a region."""
    for service, family, usage, unit, price in _PLAIN:
        yield _attributes(region, service, family, usage), unit, price
    for kind, price in _VOLUMES.items():
        usage = f"EBS:VolumeUsage.{'piops' if kind == 'io1' else kind}"
        yield {**_attributes(region, "AmazonEC2", "Storage", usage), "volumeApiName": kind}, "GB-Mo", price
    for name, facts in INSTANCE_TYPES.items():
        own = {**_ON_DEMAND, "instanceType": name, "vcpu": str(facts["VCpuInfo"]["DefaultVCpus"])}
        attributes = _attributes(region, "AmazonEC2", "Compute Instance", f"BoxUsage:{name}")
        yield {**attributes, **own}, "Hrs", _PER_CORE * facts["VCpuInfo"]["DefaultVCpus"]


def _attributes(region: str, service: str, family: str, usage: str) -> dict[str, str]:
    area, *middle, number = region.split("-")
    prefix = "" if region == "us-east-1" else f"{area.upper()}{''.join(one[0].upper() for one in middle)}{number}-"
    words = {"servicecode": service, "productFamily": family, "regionCode": region, "usagetype": f"{prefix}{usage}"}
    return {**words, "sample": "true"}


def _product(attributes: dict[str, str], unit: str, price: float, currency: str) -> dict[str, Any]:
    family = attributes["productFamily"]
    shown = {key: value for key, value in attributes.items() if key != "productFamily"}
    sku = f"SAMPLE{zlib.crc32(attributes['usagetype'].encode()):08X}"
    dimension = {"unit": unit, "pricePerUnit": {currency: f"{price:.10f}"}, "rateCode": f"{sku}.S.S"}
    dimension |= {"description": f"sample price of the sandbox, per {unit}", "beginRange": "0", "endRange": "Inf"}
    offer = {"sku": sku, "effectiveDate": _DATE, "priceDimensions": {f"{sku}.S.S": dimension}, "termAttributes": {}}
    return {
        "product": {"productFamily": family, "attributes": shown, "sku": sku},
        "serviceCode": attributes["servicecode"],
        "terms": {"OnDemand": {f"{sku}.S": offer}},
        "publicationDate": _DATE,
    }


BEFORE: dict[tuple[str, str], Before] = {("pricing", "GetProducts"): get_products}
