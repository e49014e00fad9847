"""The routes file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from meshkit.egress import DataClass
from services.router.deployment import LocalDeployment
from services.router.endpoints import OpenAIDeployment
from services.router.preferences import StrategyName, Tier
from services.router.routes import RoutesInvalid, load_routes

LOCAL = "{adapter: local, name: ours, provider: local, model: m, serves: m, context_tokens: 100}"
CLOUD = """
adapter: openai, name: cloud, provider: cloud, model: m, serves: m, context_tokens: 100, region: global,
base_url: 'https://cloud.example/v1/'
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def routes_file(text: str) -> Path:
        path = tmp_path / "routes.yaml"
        path.write_text(dedent(text))
        return path

    return routes_file


def mistakes(path: Path, **environment: str) -> list[str]:
    with pytest.raises(RoutesInvalid) as caught:
        load_routes(path, environment)
    return caught.value.mistakes


def test_the_default_routes_are_valid_without_any_credential():
    deployments = load_routes(Path("deploy/local/routes.yaml"), {}).deployments
    assert [each.name for each in deployments] == ["local/smollm2-135m", "local/multilingual-e5-small"]


def test_every_example_of_the_default_routes_is_valid_once_it_is_uncommented(write):
    text = Path("deploy/local/routes.yaml").read_text()
    examples = re.findall(r"^  # (- name:.*\n(?:  #   .*\n)+)", text, flags=re.MULTILINE)
    entries = [yaml.safe_load(re.sub("^  # ", "", example, flags=re.MULTILINE))[0] for example in examples]
    # Neither the extra nor the bundle is on every machine.
    entries = [each for each in entries if each["adapter"] != "litellm"]
    for each in entries:
        each.pop("ca_file", None)
    path = write(yaml.safe_dump({"deployments": entries}))
    references = set(re.findall(r"env:(\w+)", text))
    assert {each.name for each in load_routes(path, dict.fromkeys(references, "x")).deployments} == {
        "openai/gpt-5-mini",
        "gigachat/GigaChat-2-Pro",
        "yandex/yandexgpt",
        "yandex/qwen3-235b",
        "dashscope-beijing/qwen-plus",
        "dashscope-singapore/qwen-plus",
        "cloudru/qwen3-coder",
        "vllm/qwen3-32b",
    }


def test_our_own_machines_may_hold_everything_and_clouds_only_little(write):
    ours, cloud = load_routes(write(f"deployments: [{LOCAL}, {{{CLOUD}}}]"), {}).deployments
    assert isinstance(ours, LocalDeployment)
    assert ours.data_classes == set(DataClass)
    assert isinstance(cloud, OpenAIDeployment)
    assert cloud.data_classes == {DataClass.PUBLIC, DataClass.INTERNAL}
    assert cloud.base_url == "https://cloud.example/v1"


def test_a_cloud_endpoint_on_our_own_machines_may_hold_everything(write):
    text = CLOUD.replace("region: global", "region: local").replace("https:", "http:")
    assert load_routes(write(f"deployments: [{{{text}}}]"), {}).deployments[0].data_classes == set(DataClass)


def test_every_mistake_is_listed_with_its_place(write):
    path = write(
        """
        colour: blue
        deployments:
          - {adapter: local, name: ours, provider: local, model: m, serves: m, context_tokens: 0}
          - {adapter: openai, name: ours, provider: cloud, model: m, serves: m, context_tokens: 5, region: mars,
             base_url: 'ftp://x', timeouts: {connect_seconds: soon}, data_classes: [public, secret],
             headers: {Authorization: 'Bearer x'}, credential: sk-123}
          - {adapter: carrier-pigeon, name: p}
          - just text
        """
    )
    listed = mistakes(path)
    assert [line.partition(": ")[0] for line in listed] == [
        "colour",
        "deployments[0].context_tokens",
        "deployments[1].region",
        "deployments[1].data_classes[1]",
        "deployments[1].timeouts.connect_seconds",
        "deployments[1].base_url",
        "deployments[1].credential",
        "deployments[1].headers",
        "deployments[2]",
        "deployments[3]",
    ]
    assert "sk-123" not in "".join(listed)


def test_every_mistake_of_the_ranking_is_listed_beside_those_of_the_deployments(write):
    path = write(
        """
        strategies:
          default: dearest
          tiers: {gold: cheapest, pro: random}
          models: {nobody: quality}
          quality_share: 2
        deployments:
          - {adapter: local, name: ours, provider: local, model: m, serves: m, context_tokens: 1, quality: 11,
             weight: -1, priority: 0, first_token_seconds: soon}
        """
    )
    assert [line.partition(": ")[0] for line in mistakes(path)] == [
        "deployments[0].quality",
        "deployments[0].weight",
        "deployments[0].priority",
        "deployments[0].first_token_seconds",
        "strategies.default",
        "strategies.tiers.gold",
        "strategies.tiers.pro",
        "strategies.quality_share",
    ]


def test_a_strategy_for_a_model_nobody_serves_is_a_mistake(write):
    text = f"strategies: {{models: {{m: quality, nobody: quality}}}}\ndeployments: [{LOCAL}]"
    assert mistakes(write(text)) == ["strategies.models.nobody: no deployment serves it"]
    text = f"strategies: {{hedges: {{m: {{}}, nobody: {{}}}}}}\ndeployments: [{LOCAL}]"
    assert mistakes(write(text)) == ["strategies.hedges.nobody: no deployment serves it"]


def test_every_mistake_of_the_rules_is_listed_too(write):
    path = write(
        """
        rules:
          - {name: typo, when: "tenant.teir == 'free'", strategy: fastest}
          - {name: idle, when: "true"}
          - {name: nowhere, when: "true", forbid: {}, prefer: {regions: [mars]}}
          - {name: nobody, when: "true", forbid: {deployments: [gone]}, colour: red}
          - {name: unknown, when: "true", forbid: {deployments: [gone]}, require: {providers: [nobody, local]}}
          - just text
        deployments:
          - {adapter: local, name: ours, provider: local, model: m, serves: m, context_tokens: 1}
        """
    )
    listed = mistakes(path)
    assert [line.partition(": ")[0] for line in listed] == [
        "rules[0].when",
        "rules[0].strategy",
        "rules[1]",
        "rules[2].forbid",
        "rules[2].prefer.regions[0]",
        "rules[3].colour",
        "rules[5]",
        "rules[4].forbid.deployments",
        "rules[4].require.providers",
    ]
    assert "undeclared reference to 'tenant.teir'" in listed[0]
    assert mistakes(write(f"rules: 5\ndeployments: [{LOCAL}]")) == ["rules: must be a list"]


def test_strategies_are_read(write):
    routes = load_routes(write(f"strategies: {{tiers: {{pro: latency}}}}\ndeployments: [{LOCAL}]"), {})
    assert routes.strategies.tiers == {Tier.PRO: StrategyName.LATENCY}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("base_url: 'http://cloud.example/v1'", "base_url must be https unless region is local"),
        ("base_url: 'https://me:secret@cloud.example/v1'", "must hold no user, password, query or fragment"),
        ("optional: true", "optional needs a credential that may be absent"),
        ("colour: blue", "Extra inputs are not permitted"),
        ('headers: {x-folder: "a\\r\\nb"}', "String should match pattern"),
    ],
)
def test_a_dangerous_field_is_refused(write, change, complaint):
    key = change.partition(":")[0]
    kept = ", ".join(part for part in CLOUD.strip().split(",") if not part.strip().startswith(f"{key}:"))
    (line,) = mistakes(write(f"deployments: [{{{kept.rstrip(', ')}, {change}}}]"))
    assert complaint in line
    assert "secret" not in line


def test_a_missing_credential_is_a_mistake(write):
    path = write(f"deployments: [{{{CLOUD}, credential: 'env:CLOUD_KEY', headers: {{x-folder: 'env:FOLDER'}}}}]")
    assert mistakes(path, FOLDER="") == [
        "deployments[0].credential: CLOUD_KEY is not set; set it, or mark the deployment optional",
        "deployments[0].headers.x-folder: FOLDER is not set; set it, or mark the deployment optional",
    ]
    assert load_routes(path, {"CLOUD_KEY": "k", "FOLDER": "f"}).left_out == []


def test_an_optional_deployment_without_its_credential_is_left_out(write):
    path = write(f"deployments: [{LOCAL}, {{{CLOUD}, credential: 'env:CLOUD_KEY', optional: true}}]")
    without, with_key = load_routes(path, {}), load_routes(path, {"CLOUD_KEY": "k"})
    assert [each.name for each in without.deployments] == ["ours"]
    assert [each.name for each in without.left_out] == ["cloud"]
    assert [each.name for each in with_key.deployments] == ["ours", "cloud"]


def test_nothing_left_is_a_mistake(write):
    path = write(f"deployments: [{{{CLOUD}, credential: 'env:CLOUD_KEY', optional: true}}]")
    assert mistakes(path) == ["deployments: every one is optional and none has its credential"]


def test_a_name_used_twice_is_a_mistake(write):
    assert mistakes(write(f"deployments: [{LOCAL}, {LOCAL}]")) == [
        "deployments[0].name: 'ours' is used 2 times",
        "deployments[1].name: 'ours' is used 2 times",
    ]


def test_a_model_is_either_for_chat_or_for_embeddings(write):
    (line,) = mistakes(write(f"deployments: [{LOCAL}, {{{CLOUD}, embeds: true}}]"))
    assert line == "deployments[1].embeds: 'm' is served both for chat and for embeddings"


@pytest.mark.parametrize("text", ["", "deployments: []", "deployments: {}", "[]", "just text"])
def test_a_file_without_deployments_is_a_mistake(write, text):
    assert mistakes(write(text)) == ["deployments: must be a list with at least one deployment"]


def test_a_key_that_stands_twice_is_a_mistake_not_a_silent_choice(write):
    (line,) = mistakes(write("deployments: [{adapter: openai, region: eu, region: global}]"))
    assert "region stands twice" in line


def test_a_deployment_may_build_on_another_with_a_merge_key(write):
    text = f"deployments: [&first {{{CLOUD.strip().rstrip(',')}}}, {{<<: *first, name: second}}]"
    first, second = load_routes(write(text), {}).deployments
    assert (second.name, second.base_url) == ("second", first.base_url)


def test_a_date_that_does_not_exist_is_a_mistake(write):
    assert mistakes(write("deployments: []\nsince: 2026-09-31")) == ["day is out of range for month"]


def test_a_file_that_is_not_there_is_a_mistake(tmp_path):
    (line,) = mistakes(tmp_path / "missing.yaml")
    assert "missing.yaml" in line


def test_every_mistake_of_experiments_is_told(write):
    path = write(f"""
        deployments: [{LOCAL}]
        prompts: {{brief: {{system: Be brief.}}, empty: {{system: ''}}}}
        experiments:
          - {{name: x, model: m, variants: [{{name: a}}, {{name: b, prompt: brief, deployments: [ours]}}]}}
          - {{name: x, model: m, unit: city, variants: [{{name: a}}]}}
          - {{name: y, model: n, variants: [{{name: a, prompt: gone}}, {{name: b, deployments: [cloud]}}]}}
          - {{name: x, model: m, variants: [{{name: a, weight: 0}}, {{name: a, weight: 0}}]}}
          - {{name: z/z, model: m, measure: luck, variants: [{{name: a}}, {{name: b}}]}}
    """)
    assert mistakes(path) == [
        "prompts.empty.system: String should have at least 1 character",
        "experiments[1].unit: Input should be 'user', 'key', 'tenant' or 'request'",
        "experiments[1].variants: Tuple should have at least 2 items after validation, not 1",
        "experiments[3]: at least one variant must have a weight",
        "experiments[4].name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'",
        "experiments[4].measure: Input should be 'success', 'fallback', 'abandoned', 'first_token_seconds', 'seconds', "
        "'cost_micros', 'output_tokens' or 'quality'",
        "experiments[0].variants[1].prompt: there is no 'brief'",
        "experiments[2].model: no chat deployment serves 'n'",
        "experiments[2].variants[0].prompt: there is no 'gone'",
        "experiments[2].variants[1].deployments: no 'cloud' serves 'n'",
    ]


def test_a_model_is_split_once(write):
    two = "[{name: a}, {name: b}]"
    path = write(f"""
        deployments: [{LOCAL}]
        experiments: [{{name: x, model: m, variants: {two}}}, {{name: x, model: m, variants: {two}}}]
    """)
    told = mistakes(path)
    assert "experiments[0].name: 'x' is used 2 times" in told
    assert "experiments[1].model: 'm' is in another experiment, too: their effects would mix" in told


def test_a_shadow_needs_somebody_who_answers(write):
    shadow = LOCAL.replace("}", ", shadow: {share_percent: 10}}")
    assert mistakes(write(f"deployments: [{shadow}]")) == [
        "deployments[0].shadow: nobody answers 'm': all its deployments are shadows"
    ]
    embeds = LOCAL.replace("name: ours", "name: other, embeds: true, shadow: {share_percent: 10}")
    both = LOCAL.replace("name: ours", "name: ours, embeds: true")
    assert mistakes(write(f"deployments: [{both}, {embeds}]")) == ["deployments[1].shadow: embeddings are not copied"]
