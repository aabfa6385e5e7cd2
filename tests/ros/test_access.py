"""The SROS 2 policy says exactly what the contract says."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from iql_ros.contract import load_contract
from iql_ros.nodes.access import policy_xml
from tests.small_bundle import CONTRACT


def names(mode: str, node: str, verb: str) -> list[str | None]:
    document = Xml.fromstring(policy_xml(CONTRACT, mode, "/left"))
    (rule,) = document.findall(f".//profile[@node='{node}']/topics[@{verb}='ALLOW']")
    return [topic.text for topic in rule]


def test_only_an_active_controller_may_command() -> None:
    assert "/cmd" in names("active", "iql_controller", "publish")
    assert "/cmd" not in names("shadow", "iql_controller", "publish")
    assert "/cmd/shadow" in names("shadow", "iql_controller", "publish")


def test_it_may_read_the_contracts_topics_only() -> None:
    assert names("active", "iql_controller_inputs", "subscribe") == ["/odom"]
    assert names("shadow", "iql_controller_inputs", "subscribe") == ["/odom", "/cmd"]


def test_what_only_a_recorder_hears_is_allowed_where_it_records() -> None:
    contract = load_contract("arm6")
    heard = ["joint_states", "tcp_pose", "target"]
    for records, topics in ((False, heard), (True, [*heard, "episode"])):
        document = Xml.fromstring(policy_xml(contract, "active", records=records))
        path = ".//profile[@node='iql_controller_inputs']/topics[@subscribe='ALLOW']"
        (rule,) = document.findall(path)
        assert [topic.text for topic in rule] == topics


def test_the_enclave_lies_in_the_namespace() -> None:
    document = Xml.fromstring(policy_xml(CONTRACT, "shadow", "/left"))
    assert document.find("enclaves/enclave").attrib["path"] == "/left/iql_controller"
