import pytest
from pydantic import ValidationError

from services.inference.config import InferenceConfig
from services.inference.runtime import bind_cores, engine_arguments, is_folder, prepare_environment


def test_the_default_is_one_small_model():
    assert dict(InferenceConfig().models) == {"smollm2-135m": "var/models/smollm2-135m"}


def test_models_are_listed_by_name_and_source(monkeypatch):
    monkeypatch.setenv("LLMMESH_INFERENCE_MODELS", "small=var/models/small, big=org/big,")
    assert dict(InferenceConfig().models) == {"small": "var/models/small", "big": "org/big"}


def test_an_empty_list_serves_embeddings_alone(monkeypatch):
    monkeypatch.setenv("LLMMESH_INFERENCE_MODELS", "")
    assert dict(InferenceConfig().models) == {}


@pytest.mark.parametrize("listed", ["small", "=path", "small=", "a=x,a=y", "a=x, a =y"])
def test_a_list_that_makes_no_sense_is_refused_at_start(monkeypatch, listed):
    monkeypatch.setenv("LLMMESH_INFERENCE_MODELS", listed)
    with pytest.raises(ValidationError):
        InferenceConfig()


def test_on_a_cpu_the_engine_computes_in_float32_and_starts_uncompiled():
    assert engine_arguments(InferenceConfig(cpu_kv_gib=0.5), "cpu") == {
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache_memory_bytes": 2**29,
    }


def test_on_a_gpu_the_engine_chooses_for_itself():
    assert engine_arguments(InferenceConfig(), "cuda") == {
        "dtype": "auto",
        "enforce_eager": False,
        "gpu_memory_utilization": 0.9,
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("eager", [True, False])
def test_compilation_can_be_chosen_on_any_device(device, eager):
    assert engine_arguments(InferenceConfig(enforce_eager=eager), device)["enforce_eager"] is eager


def test_the_engine_can_be_kept_to_some_cores():
    environment = {}
    bind_cores(InferenceConfig(cpu_cores="0-2"), environment)
    assert environment == {"VLLM_CPU_OMP_THREADS_BIND": "0-2"}


def test_otherwise_the_engine_chooses_its_cores(tmp_path):
    environment = {}
    bind_cores(InferenceConfig(), environment, tmp_path / "missing")
    assert environment == {}


@pytest.mark.parametrize(
    ("limit", "threads"), [("400000 100000", "3"), ("250000 100000", "1"), ("50000 100000", "1"), ("30000 5000", "5")]
)
def test_a_container_granted_less_than_the_cores_it_sees_computes_on_one_less_than_that(
    limit, threads, tmp_path, monkeypatch
):
    assert bound_under(limit, tmp_path, monkeypatch) == {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads,
    }


@pytest.mark.parametrize("limit", ["max 100000", "800000 100000", "900000 100000"])
def test_a_container_granted_every_core_it_sees_lets_the_engine_choose(limit, tmp_path, monkeypatch):
    assert bound_under(limit, tmp_path, monkeypatch) == {}


def test_threads_that_the_operator_set_stay(tmp_path, monkeypatch):
    bound = bound_under("400000 100000", tmp_path, monkeypatch, OMP_NUM_THREADS="2")
    assert bound["OMP_NUM_THREADS"] == "2"


def bound_under(limit, tmp_path, monkeypatch, **environment):
    """The environment of an engine that sees eight cores, in a container with a limit."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{limit}\n")
    bind_cores(InferenceConfig(), environment, quota)
    return environment


def test_with_folders_alone_the_libraries_stay_off_the_network(tmp_path):
    environment = {}
    prepare_environment([str(tmp_path), "./missing"], environment)
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_a_hub_id_may_be_fetched():
    environment = {}
    prepare_environment(["HuggingFaceTB/SmolLM2-135M-Instruct"], environment)
    assert "HF_HUB_OFFLINE" not in environment


def test_what_the_operator_set_stays():
    environment = {"VLLM_CONFIGURE_LOGGING": "1"}
    prepare_environment([], environment)
    assert environment["VLLM_CONFIGURE_LOGGING"] == "1"


@pytest.mark.parametrize(
    ("source", "folder"),
    [("var/models/missing", True), ("/models/x", True), ("./x", True), ("missing", True), ("owner/name", False)],
)
def test_a_hub_id_is_owner_and_name(source, folder):
    assert is_folder(source) is folder
