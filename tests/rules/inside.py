"""Runs on a stand-in node: audits a plan with the collection's probes and prints the findings as JSON.

Ansible is not there; the module's own main() is not used, so its one import of Ansible is stood in for.
Usage: python3 inside.py DIRECTORY_OF_ANSIBLE_COLLECTIONS < plan.json
A plan ``{"checks": [name, ...]}`` asks for these checks of verify_node instead, and gives a list.
"""

import json
import sys
import types

sys.path.insert(0, sys.argv[1])
for name in ("ansible", "ansible.module_utils", "ansible.module_utils.basic"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["ansible.module_utils.basic"].AnsibleModule = None

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import core as checks
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import registry
from ansible_collections.cisdriver.amazon_linux.plugins.modules import audit

plan = json.load(sys.stdin)
node = core.Node()
if "checks" in plan:
    json.dump([checks.run(node, registry.CHECKS[name]) for name in plan["checks"]], sys.stdout)
else:
    json.dump(audit.audit(node, plan), sys.stdout)
