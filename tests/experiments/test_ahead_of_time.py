"""Compilation for TPUs without one: what HLO texts say, and two steps of the real thing."""

import importlib.util

import pytest

from experiments.benchmarks.ahead_of_time import AheadOfTimeConfig, main, read_rows
from experiments.benchmarks.hlo_text import collectives, host_calls, products
from experiments.benchmarks.tpu_program import cells_of_products, unlisted
from metarep_jax.backend import compiling_for, target_backend
from metarep_jax.report.results import read_result
from metarep_jax.train import compute_dtype

LOWERED = """HloModule jit_step

FileNames
1 "/somewhere/metarep_jax/train/step.py"
2 "/somewhere/metarep_jax/metalearn/prototypical.py"
3 "/elsewhere/flax/linear.py"

FunctionNames
1 "make_update.<locals>.update"
2 "distances"
3 "Dense.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=84 end_line=84 column=36 end_column=80}
2 {file_name_id=2 function_name_id=2 line=9 end_line=9 column=1 end_column=2}
3 {file_name_id=3 function_name_id=3 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

twice.1 {
  Arg_0.1 = f32[4,8]{1,0} parameter(0)
  Arg_1.1 = f32[3,8]{1,0} parameter(1)
  ROOT dot.1 = f32[4,3]{1,0} dot(Arg_0.1, Arg_1.1), lhs_contracting_dims={1}, rhs_contracting_dims={1}, metadata={stack_frame_id=3}
}

ENTRY main.2 {
  Arg_0.2 = f32[4,8]{1,0} parameter(0)
  Arg_1.2 = bf16[2,9,9,3]{3,2,1,0} parameter(1)
  Arg_2.2 = bf16[3,3,3,5]{3,2,1,0} parameter(2)
  call.1 = f32[4,3]{1,0} call(Arg_0.2, Arg_0.2), to_apply=twice.1
  call.2 = f32[4,3]{1,0} call(Arg_0.2, Arg_0.2), to_apply=twice.1
  convolution.1 = bf16[2,4,4,5]{3,2,1,0} convolution(Arg_1.2, Arg_2.2), window={size=3x3 stride=2x2}, dim_labels=b01f_01io->b01f
  convolution.2 = bf16[2,9,9,3]{3,2,1,0} convolution(convolution.1, Arg_2.2), window={size=3x3 pad=2_2x2_2 lhs_dilate=2x2}, dim_labels=b01f_01oi->b01f
  ROOT dot.2 = f32[4,4]{1,0} dot(Arg_0.2, Arg_0.2), lhs_contracting_dims={1}, rhs_contracting_dims={1}, operand_precision={highest,highest}, metadata={stack_frame_id=1}
}
"""  # noqa: E501

OPTIMISED = """HloModule jit_step, is_scheduled=true

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %all-reduce.1 = f32[516]{0:T(1024)S(1)} all-reduce(%fusion.1), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %all-gather-start.1 = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[256,128]{1,0:T(8,128)(2,1)}) all-gather-start(%p.1), channel_id=2
  %all-gather-done.1 = bf16[256,128]{1,0:T(8,128)(2,1)} all-gather-done(%all-gather-start.1)
  %custom-call.1 = s32[64,2]{1,0:T(8,128)} custom-call(%c.1), custom_call_target="GatherScatterIndicesBitpacked"
  %send.1 = (f32[4], u32[], token[]) send(%x.1, %token.1), channel_id=3
  %send.2 = (f32[4], u32[], token[]) send(%x.1, %token.1), channel_id=4, is_host_transfer=true
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %custom-call.2 = f32[] custom-call(), custom_call_target="xla_ffi_python_cpu_callback", api_version=API_VERSION_TYPED_FFI
}
"""  # noqa: E501


def test_products_are_counted_as_often_as_they_run_and_belong_to_this_packages_innermost_function():
    found = products(LOWERED)
    assert [each.flop for each in found] == [2 * 2 * 4 * 3 * 8, 2 * 160 * 27, 2 * 486 * 45 / 4, 2 * 16 * 8]
    assert [each.float32 for each in found] == [True, False, False, True]
    assert [each.full_precision for each in found] == [False, False, False, True]
    assert found[0].place == "metalearn/prototypical.py: distances"
    assert found[3].place == "train/step.py: make_update"


def test_float32_products_that_nobody_asked_for_are_told_with_their_place():
    found = [each._replace(place="encoders/mine.py: Mine") for each in products(LOWERED)]
    assert unlisted(found) == {"encoders/mine.py: Mine": pytest.approx(384e-9)}
    cells = cells_of_products(found)
    assert (cells["float32_listed"]["mean"], cells["float32_unlisted"]["mean"]) == (1, 1)


def test_a_collective_counts_once_by_the_bytes_that_each_device_gets():
    assert collectives(OPTIMISED) == [4 * 516, 2 * 256 * 128]


def test_calls_of_the_host_are_found_and_other_custom_calls_are_not():
    assert host_calls(OPTIMISED) == ["send.2", "custom-call.2"]
    assert host_calls(LOWERED) == []


def test_code_is_traced_for_the_backend_that_it_is_compiled_for():
    assert target_backend() == "cpu" and compute_dtype() == "float32"
    with compiling_for("tpu"):
        assert target_backend() == "tpu" and compute_dtype() == "bfloat16"
    assert target_backend() == "cpu"
    with pytest.raises(ValueError, match="unknown backend 'npu'; there are: cpu, gpu, tpu"), compiling_for("npu"):
        pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": ("nothing",)}, "--steps: there is no 'nothing'; there are: simclr_conv4"),
        ({"topology": "h100:2x2"}, "--topology: chips of kind 'h100' are not known"),
        ({"limit": 0.0}, "--limit must be positive"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        AheadOfTimeConfig(**flags)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu-aot")
def test_two_steps_compile_for_tpus_with_few_bytes_and_no_stray_float32_product(tmp_path, monkeypatch):
    config = AheadOfTimeConfig(steps=("simclr_conv4", "prototypical_conv4"), result=tmp_path / "ahead_of_time.json")
    main(config)
    result = read_result(config.result)
    assert list(result.cells) == ["simclr_conv4 v5e:2x2", "prototypical_conv4 v5e:2x2"]
    for row in result.cells.values():
        assert row["compiles"]["mean"] == 1 and row["float32_unlisted"]["mean"] == row["host_calls"]["mean"] == 0
    assert result.cells["simclr_conv4 v5e:2x2"]["gb"]["mean"] < 0.3
    commit = result.config["rows"]["simclr_conv4 v5e:2x2"]["commit"]
    monkeypatch.setattr("experiments.benchmarks.ahead_of_time.commit_of_code", lambda: commit.removesuffix("+dirty"))
    assert len(read_rows(config)[0]) == (0 if commit.endswith("+dirty") else 2)  # what other code made is made anew
