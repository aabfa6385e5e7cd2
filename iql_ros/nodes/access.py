"""The SROS 2 policy of one bundle's controller: these topics and services, nothing else.

python -m iql_ros.nodes.access BUNDLE [--mode active] [--namespace /left] [--record] > policy.xml
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from xml.etree import ElementTree as Xml

from iql_ros.bundle import load_bundle
from iql_ros.contract import Contract

NAME = "iql_controller"
SERVICES = ("emergency_stop", "release", "reload", "rollback")
LIFECYCLE = (
    "change_state",
    "get_state",
    "get_available_states",
    "get_available_transitions",
    "get_transition_graph",
)
PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
)


def policy_xml(
    contract: Contract, mode: str, namespace: str = "/", *, records: bool = False
) -> str:
    """The policy document.

    Args:
        contract: of the bundle.
        mode: shadow or active: a shadow may not even publish a command.
        namespace: of the node; relative names in the contract follow it.
        records: whether it may hear what only its recorder wants.
    """
    commands = [contract.topics[alias].topic for alias in contract.outputs]
    inputs = [contract.topics[alias].topic for alias in contract.subscriptions]
    if records:
        inputs += [contract.topics[alias].topic for alias in contract.unseen]
    if mode == "shadow":
        inputs += commands
        commands = [f"{topic}/shadow" for topic in commands]
    document = Xml.Element("policy", version="0.2.0")
    profiles = Xml.SubElement(
        Xml.SubElement(
            Xml.SubElement(document, "enclaves"),
            "enclave",
            path=f"{namespace.rstrip('/')}/{NAME}",
        ),
        "profiles",
    )
    node = Xml.SubElement(profiles, "profile", ns=namespace, node=NAME)
    spoken = ["/diagnostics", "/rosout", "/parameter_events", "~/heartbeat", "~/contract"]
    _allow(node, "topic", "publish", [*commands, *spoken, "~/transition_event"])
    _allow(node, "topic", "subscribe", ["emergency_stop", "/parameter_events", "/clock"])
    _allow(
        node,
        "service",
        "reply",
        [f"~/{name}" for name in (*SERVICES, *LIFECYCLE, *PARAMETERS)],
    )
    reader = Xml.SubElement(profiles, "profile", ns=namespace, node=f"{NAME}_inputs")
    _allow(reader, "topic", "subscribe", inputs)
    _allow(reader, "topic", "publish", ["/parameter_events"])
    _allow(reader, "service", "reply", ["~/get_type_description"])
    Xml.indent(document)
    return Xml.tostring(document, encoding="unicode", xml_declaration=True) + "\n"


def _allow(profile: Xml.Element, kind: str, verb: str, names: Iterable[str]) -> None:
    rule = Xml.SubElement(profile, f"{kind}s", {verb: "ALLOW"})
    for name in dict.fromkeys(names):
        Xml.SubElement(rule, kind).text = name


def main() -> None:
    """Prints the policy of a bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("--mode", choices=("shadow", "active"), default="shadow")
    parser.add_argument("--namespace", default="/")
    parser.add_argument("--record", action="store_true", help="for a node with `record` set")
    arguments = parser.parse_args()
    contract = load_bundle(arguments.bundle).contract
    mode, namespace, records = arguments.mode, arguments.namespace, arguments.record
    print(policy_xml(contract, mode, namespace, records=records), end="")


if __name__ == "__main__":
    main()
