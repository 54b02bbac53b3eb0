"""Exported models: same maps for every method, metadata, and no file left behind if the outputs differ."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import ExifTags, Image
from scipy.io import wavfile

from pipeline.apps.export.export import BATCHES, difference, export_model, random_clips
from pipeline.apps.localize.localizer import Localizer
from pipeline.cli.targets import resolve_model
from pipeline.common.errors import CheckpointError, ExportError
from pipeline.common.files import file_digest
from pipeline.common.project import shard_path
from pipeline.evaluation.calibration import Calibration, read_calibration, write_calibration
from pipeline.media.log_mel import mel_frequencies
from pipeline.methods.iterative import Iterative
from pipeline.methods.registry import METHODS
from pipeline.shards.writer import ShardWriter
from pipeline.training.checkpoints import load_model, read_checkpoint, write_checkpoint
from tests.cli.test_main import run
from tests.support.exported_models import AUDIO, IMAGE_SIZE, random_inputs, save_method_model
from tests.support.projects import ROOT
from tests.support.splits import finish_split

ENDING = {"onnx": "onnx", "torch": "pt"}


@pytest.fixture
def model(tmp_path):
    return save_method_model(tmp_path / "model.pt")


def opened(path, side=8):
    """Load a file as users do, without this program; its maps have `side` × `side` cells."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert [each.shape for each in session.get_outputs()] == [["n", side, side], ["n", 8]]
        return lambda frames, log_mel: session.run(
            ["response", "audio_embedding"], {"frames": frames, "log_mel": log_mel}
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(str(path))

    def run_loaded(frames, log_mel):
        with torch.no_grad():
            return [each.numpy() for each in loaded(torch.from_numpy(frames), torch.from_numpy(log_mel))]

    return run_loaded


@pytest.mark.parametrize(
    ("strides", "padding", "side"),
    [((1, 2, 2, 1), "zeros", 2), ((1, 2, 2, 1), "replicate", 2), ((2, 1, 1, 2), "zeros", 2)],
)
def test_asymmetric_strides_and_paddings_give_the_same_maps(tmp_path, strides, padding, side):
    path = save_method_model(tmp_path / "model.pt", strides=strides, padding=padding)
    inputs = random_inputs(3, seed=3)
    for format, ending in ENDING.items():
        exported = export_model(path, tmp_path / f"out.{ending}", format=format)
        found = opened(exported.path, side)(*inputs)
        for ours, theirs in zip(load_model(path).localize(*map(torch.from_numpy, inputs)), found, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=2e-5)


TWO_STAGES = ("dsol_two_stage", "mssl")  # these use a different map before their second stage


# Rows that export the same net as another of their class: they differ in the loss, or in the normalization of the map.
SAME_NET = {
    "initial_matched": "initial",
    "itr": "iterative",
    "itr_intra": "iterative",
    "itr_inter": "iterative",
    "dsol": "dsol_two_stage",
    "mssl_stage1_eq2_eq1": "mssl_stage1_eq2",
    "mssl_stage1_unlabeled_eq2_eq1": "mssl_stage1_unlabeled_eq2",
}


def test_rows_that_export_the_same_net_are_of_one_class():
    assert all(METHODS[name].kind == METHODS[other].kind for name, other in SAME_NET.items())


@pytest.mark.parametrize(
    ("name", "second_stage"),
    [*((name, True) for name in METHODS if name not in SAME_NET), *((name, False) for name in TWO_STAGES)],
)
def test_every_method_gives_the_same_maps(tmp_path, name, second_stage):
    path = save_method_model(tmp_path / "model.pt", name, second_stage=second_stage)
    original = load_model(path)
    for format, ending in ENDING.items():
        exported = export_model(path, tmp_path / f"out.{ending}", format=format)
        assert exported.parity.response < 2e-5
        assert exported.parity.n_clips == sum(BATCHES)
        run_exported = opened(exported.path)
        for n in (1, 2, 5):
            inputs = random_inputs(n, seed=n)
            for ours, theirs in zip(
                original.localize(*map(torch.from_numpy, inputs)), run_exported(*inputs), strict=True
            ):
                assert ours.shape == theirs.shape
                assert np.abs(ours.numpy() - theirs).max() < 2e-5
        # Constant maps would be equal for any model.
        assert np.ptp(run_exported(*inputs)[0], axis=(1, 2)).max() > 1e-3


def test_onnx_metadata(model, tmp_path):
    export_model(model, tmp_path / "out.onnx", format="onnx")
    graph = onnx.load(tmp_path / "out.onnx")
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 17)]
    ports = {port.name: port.type.tensor_type for port in (*graph.graph.input, *graph.graph.output)}
    shapes = {name: [d.dim_param or d.dim_value for d in port.shape.dim] for name, port in ports.items()}
    assert shapes == {
        "frames": ["n", 3, IMAGE_SIZE, IMAGE_SIZE],
        "log_mel": ["n", AUDIO.n_mels, AUDIO.n_frames],
        "response": ["n", 8, 8],
        "audio_embedding": ["n", 8],
    }
    assert ports["frames"].elem_type == onnx.TensorProto.UINT8
    facts = {each.key: each.value for each in graph.metadata_props}
    description = load_model(model).description
    assert set(description) < set(facts)
    assert facts["method"] == "iterative"
    assert facts["fingerprint"] == description["fingerprint"]
    assert facts["model_sha256"] == file_digest(model)
    assert facts["normalization"] == "min-max"
    assert json.loads(facts["audio"]) == AUDIO.model_dump()
    assert json.loads(facts["delta_v"]) == description["delta_v"]
    assert (json.loads(facts["image_size"]), json.loads(facts["map_size"])) == (IMAGE_SIZE, [8, 8])


def test_torch_metadata_and_float_inputs(model, tmp_path):
    exported = export_model(model, tmp_path / "out.pt", format="torch")
    extra = {"soundspot.json": ""}
    loaded = torch.jit.load(str(tmp_path / "out.pt"), _extra_files=extra)
    facts = json.loads(extra["soundspot.json"])
    assert facts == exported.facts
    assert (facts["image_size"], facts["audio"]) == (IMAGE_SIZE, AUDIO.model_dump())
    frames, log_mel = map(torch.from_numpy, random_inputs(2))
    with torch.no_grad():
        assert torch.equal(loaded(frames, log_mel)[0], loaded(frames.float(), log_mel)[0])


@pytest.mark.parametrize("ending", ENDING.values())
def test_no_file_contains_local_paths(model, tmp_path, ending):
    format = "onnx" if ending == "onnx" else "torch"
    export_model(model, tmp_path / f"out.{ending}", format=format)
    content = (tmp_path / f"out.{ending}").read_bytes()
    assert str(ROOT).encode() not in content
    assert str(tmp_path).encode() not in content
    if ending == "pt":
        with zipfile.ZipFile(tmp_path / "out.pt") as archive:
            assert not [name for name in archive.namelist() if "debug" in name]


def test_onnx_export_is_deterministic(model, tmp_path):
    for name in ("a", "b"):
        export_model(model, tmp_path / f"{name}.onnx", format="onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_file_that_differs_is_not_left_behind(model, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match=r"out\.onnx: not written.*0\.0e\+00"):
        export_model(model, tmp_path / "out.onnx", format="onnx", tolerance=0)
    assert sorted(tmp_path.iterdir()) == before
    old = tmp_path / "old.onnx"
    old.write_text("old")
    with pytest.raises(ExportError, match="not written"):
        export_model(model, old, format="onnx", tolerance=0, overwrite=True)
    assert old.read_text() == "old"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_never_agree(value):
    broken, fine = np.full((1, 2, 2), value, np.float32), np.zeros((1, 2, 2), np.float32)
    for original, found in ((broken, fine), (fine, broken), (broken, broken)):
        assert difference(original, found) == np.inf
    assert difference(fine, fine) == 0


def test_weights_that_are_not_finite_are_not_exported(model, tmp_path):
    name = next(name for name in read_checkpoint(model) if name.endswith("conv1.weight"))
    content = read_checkpoint(model)
    content[name].view(-1)[5] = np.nan
    write_checkpoint(model, content)
    with pytest.raises(CheckpointError, match=rf"model\.pt: '{name}'.*finite"):
        export_model(model, tmp_path / "model.onnx", format="onnx")


def test_a_constant_batch_size_is_detected(model, tmp_path, monkeypatch):
    own = Iterative.localize

    def localize_two(self, model, frames, log_mel):
        response, audio = own(self, model, frames, log_mel)
        return response[torch.arange(len(frames))], audio

    monkeypatch.setattr(Iterative, "localize", localize_two)
    for format, ending in ENDING.items():
        with pytest.raises(ExportError, match=r"not written|cannot be exported"):
            export_model(model, tmp_path / f"out.{ending}", format=format)
        assert not list(tmp_path.glob("out*"))


def test_an_operator_that_onnx_lacks_is_one_line(model, tmp_path, monkeypatch, capfd):
    own = Iterative.localize

    def resized(self, model, frames, log_mel):
        response, audio = own(self, model, frames, log_mel)
        grown = torch.nn.functional.interpolate(response[:, None], size=(9, 9), mode="bicubic", antialias=True)
        return grown[:, 0], audio

    monkeypatch.setattr(Iterative, "localize", resized)
    with pytest.raises(
        ExportError, match=r"model\.pt: method 'iterative' cannot be exported as ONNX.*upsample_bicubic"
    ):
        export_model(model, tmp_path / "out.onnx", format="onnx")
    assert capfd.readouterr().out == ""  # torch would print the whole graph


def test_a_method_that_cannot_be_exported_is_reported(model, tmp_path, monkeypatch):
    def odd(self, model, frames, log_mel):
        if torch.jit.is_tracing():
            raise RuntimeError("no way\nto trace this")
        return torch.zeros(len(frames), 2, 2), torch.zeros(len(frames), 2)

    monkeypatch.setattr(Iterative, "localize", odd)
    with pytest.raises(ExportError, match=r"'iterative' .*RuntimeError: no way to trace"):
        export_model(model, tmp_path / "out.pt", format="torch")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_reported(model, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"package {package}\b.*\[export\]"):
        export_model(model, tmp_path / "out.onnx", format="onnx")
    export_model(model, tmp_path / "out.pt", format="torch")


def write_shard(folder, n, **changed):
    settings = {"fingerprint": "0" * 32, "image_size": IMAGE_SIZE, **AUDIO.model_dump(), **changed}
    size = settings["image_size"]
    mel_hz = mel_frequencies(n_mels=AUDIO.n_mels, sample_rate=AUDIO.sample_rate)
    path = shard_path(folder, 0)
    with ShardWriter.create(path, settings=settings, capacity=n, mel_hz=mel_hz, n_frames=AUDIO.n_frames) as shard:
        frame = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        log_mel = random_inputs(n)[1]
        shard.append([f"c{i}" for i in range(n)], frame=frame, log_mel=log_mel, source_time_s=np.zeros(n))
    finish_split(folder)


def test_the_clips_of_shards(model, tmp_path):
    for n, compared in ((6, 4), (1, 1)):
        write_shard(tmp_path / f"of{n}", n)
        exported = export_model(model, tmp_path / f"out{n}.pt", format="torch", shards=tmp_path / f"of{n}")
        assert (exported.parity.n_clips, exported.parity.response) == (compared, 0)
    write_shard(tmp_path / "large", 4, image_size=48)
    with pytest.raises(ExportError, match=r"large: .*\b48 .*\b32 "):
        export_model(model, tmp_path / "out.pt", format="torch", shards=tmp_path / "large")


def test_random_clips_differ_between_clips_but_not_between_calls():
    frames, log_mel = random_clips(image_size=IMAGE_SIZE, audio=AUDIO)
    again = random_clips(image_size=IMAGE_SIZE, audio=AUDIO)
    assert (frames.shape, frames.dtype) == ((4, 3, 32, 32), np.uint8)
    assert (log_mel.shape, log_mel.dtype) == ((4, AUDIO.n_mels, AUDIO.n_frames), np.float32)
    assert np.array_equal(frames, again[0])
    assert np.array_equal(log_mel, again[1])
    assert len({each.tobytes() for each in log_mel}) == len({each.tobytes() for each in frames}) == 4


@pytest.mark.slow
def test_the_code_in_the_card_runs_without_this_program(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    # As a phone stores it: turned, with the orientation that turns it back. PNG keeps the pixels.
    turned, exif = Image.fromarray(np.rot90(pixels)), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save("frame.png", exif=exif)
    wave = (0.3 * np.sin(np.arange(3000) / 3) + 0.01 * rng.normal(size=3000)).astype(np.float32)
    wavfile.write("audio.wav", AUDIO.sample_rate, wave)
    code = "import sys; sys.modules['pipeline'] = None\n"
    for format, ending in ENDING.items():
        assert run("export", "model.pt", "--format", format, "-o", f"out.{ending}") == 0
        text = (tmp_path / f"out.{ending}.md").read_text().split("```python\n")[1].split("```")[0]
        code += text.replace("frame.jpg", "frame.png") + f"\nnp.savez('{format}', response=response[0], heat=heat)\n"
        code += "assert overlay.size == image.size and sounding.any() and not sounding.all()\n"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    localizer = Localizer.load("model.pt", device="cpu")
    expected = localizer.localize_batch([pixels], [localizer.window(wave, AUDIO.sample_rate)])[0].response
    for format in ENDING:
        with np.load(f"{format}.npz") as found:
            assert np.abs(found["response"] - expected).max() < 1e-4
            assert np.abs(found["heat"] - localizer.heat(expected)).max() < 2e-3


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two variants, one of them with two seeds."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"seeds": [0, 5]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    model = save_method_model(tmp_path / "runs/demo/iterative/model.pt").read_bytes()
    for place in ("iterative/seed_5", "initial"):
        (tmp_path / "runs/demo" / place).mkdir()
        (tmp_path / "runs/demo" / place / "model.pt").write_bytes(model)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "seed", "found"),
    [
        ("iterative", None, "iterative"),
        ("iterative", 0, "iterative"),
        ("iterative", 5, "iterative/seed_5"),
        ("runs/demo/initial", None, "initial"),
        ("runs/demo/initial/model.pt", None, "initial"),
        ("runs/demo/iterative", 5, "iterative/seed_5"),
    ],
)
def test_models_are_found(project, word, seed, found):
    path = resolve_model(word, dataset=None, seed=seed, params_path=project / "params.yaml")
    assert path.resolve() == project / "runs/demo" / found / "model.pt"


@pytest.mark.parametrize(
    ("word", "dataset", "seed", "message"),
    [
        ("iteratve", None, None, r"runs/demo/iteratve: no run with model.pt; available: initial, iterative"),
        ("iterative", "elsewhere", None, "runs/elsewhere/iterative: .*train first: dvc repro train"),
        ("iterative", None, 7, "no folder seed_7, .* 0, 5"),
        ("runs/demo/none", None, None, "runs/demo/none: no such model"),
        ("runs/demo/initial", None, 5, "runs/demo/initial/seed_5: .*leave out --seed"),
    ],
)
def test_unknown_models(project, word, dataset, seed, message):
    with pytest.raises(CheckpointError, match=message):
        resolve_model(word, dataset=dataset, seed=seed, params_path=project / "params.yaml")


def test_the_command(project, capsys):
    assert run("export", "iterative", "--format", "onnx", "-o", "out/it.onnx") == 0
    printed = capsys.readouterr()
    assert "4 clips (random frames and audio)" in printed.out
    assert "wrote out/it.onnx (0.1 MB) and out/it.onnx.md" in printed.out
    assert sorted(each.name for each in (project / "out").iterdir()) == ["it.onnx", "it.onnx.md"]
    assert run("export", "iterative", "--format", "torch", "-o", "it.pt", "--seed", "5", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["file"], facts["card"], facts["parity"]["response"]) == ("it.pt", "it.pt.md", 0)
    assert facts["bytes"] == (project / "it.pt").stat().st_size


def test_the_calibration_is_written_next_to_an_export(project, capsys):
    model = project / "runs/demo/iterative/model.pt"
    peaks = np.random.default_rng(0).normal(size=5)
    calibration = Calibration.of(peaks, {"shuffled": peaks - 1}, model=file_digest(model), split="test")
    write_calibration(project / "results/demo/maps/iterative/calibration.json", calibration)
    assert run("export", "iterative", "--format", "torch", "-o", "it.pt") == 0
    assert capsys.readouterr().out.endswith("and it.pt.md, it.pt.calibration.json\n")
    assert read_calibration(project / "it.pt.calibration.json") == calibration
    # The model that replaces it has no calibration.
    assert run("export", "initial", "--format", "torch", "-o", "it.pt", "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out)["calibration"] is None
    assert not (project / "it.pt.calibration.json").exists()


@pytest.mark.parametrize("name", ["it.pt.md", "it.pt.calibration.json"])
def test_companion_files_are_not_replaced_by_accident(project, capsys, monkeypatch, name):
    (project / name).write_text("mine")
    monkeypatch.setattr(
        "pipeline.apps.export.export.load_model", lambda *_: pytest.fail("loaded the model before checking the output")
    )
    assert run("export", "iterative", "--format", "torch", "-o", "it.pt") == 1
    assert f"error: {name}: exists" in capsys.readouterr().err
    assert (project / name).read_text() == "mine"
    assert not (project / "it.pt").exists()
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert run("export", "iterative", "--format", "torch", "-o", "it.pt", "--overwrite") == 0
    assert not (project / name).exists() or (project / name).read_text() != "mine"


@pytest.mark.parametrize(
    ("format", "output", "options", "message"),
    [
        ("onnx", "a.pt", [], "a.pt: ONNX"),
        ("torch", "a.onnx", [], "a.onnx: TorchScript"),
        ("torch", "there.pt", [], "there.pt: exists"),
        ("torch", "runs/demo/iterative/model.pt", ["--overwrite"], "model.pt: is the model"),
        ("onnx", "a.onnx", ["--tolerance", "0"], "a.onnx: not written"),
    ],
)
def test_rejected_outputs(project, capsys, format, output, options, message):
    (project / "there.pt").touch()
    model = (project / "runs/demo/iterative/model.pt").read_bytes()
    assert run("export", "iterative", "--format", format, "-o", output, *options) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert (project / "runs/demo/iterative/model.pt").read_bytes() == model
    assert not list(project.glob("*.md"))
    assert run("export", "iterative", "--format", "wav", "-o", output) == 2
