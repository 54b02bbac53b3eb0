"""The model card's last part: Python that uses an exported file without this program.

The code is written out for the file at hand, and a test runs it as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PREPARE = """\
import json

import librosa
import numpy as np
{imports}
from PIL import Image

{open}
audio, size = facts["audio"], facts["image_size"]

picture = Image.open("frame.jpg").convert("RGB")
frames = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)[None]

rate, length = audio["sample_rate"], round(audio["sample_rate"] * audio["clip_seconds"])
wave, _ = librosa.load("sound.wav", sr=rate, mono=True)
start = max(0, (len(wave) - length) // 2)  # the middle of the sound, that the frame belongs to
wave = librosa.util.pad_center(wave[start : start + length], size=length)
wave = wave / np.abs(wave).max()  # leave silent windows out
mel = librosa.feature.melspectrogram(
    y=wave, sr=rate, n_fft=audio["n_fft"], hop_length=audio["hop_length"], n_mels=audio["n_mels"],
    power=audio["power"], pad_mode="constant",
)
log_mel = np.log(np.maximum(mel, audio["log_floor"]))[None].astype(np.float32)

{run}
{normalize}
sounding = heat > facts["delta_v"]
overlay = Image.fromarray(heat).resize(picture.size, Image.Resampling.BILINEAR)"""

OPEN = {
    "onnx": """\
session = onnxruntime.InferenceSession({name})
facts = {{key: json.loads(value) if key in ("audio", "image_size", "delta_v") else value
         for key, value in session.get_modelmeta().custom_metadata_map.items()}}""",
    "torch": """\
extra = {{"soundspot.json": ""}}
model = torch.jit.load({name}, map_location="cpu", _extra_files=extra)
facts = json.loads(extra["soundspot.json"])""",
}
RUN = {
    "onnx": 'response, embedding = session.run(None, {"frames": frames, "log_mel": log_mel})',
    "torch": """\
with torch.no_grad():
    response, embedding = (each.numpy() for each in model(torch.tensor(frames), torch.tensor(log_mel)))""",
}
NORMALIZE = {
    "min-max": "heat = (response[0] - response[0].min()) / np.ptp(response[0])",
    "relu-max": "heat = np.maximum(response[0], 0) / response[0].max()",
}
PACKAGES = {"onnx": "onnxruntime", "torch": "torch"}


def usage(name: str, format: str, facts: Mapping[str, Any]) -> str:
    """Return what the inputs and outputs are, and code that prepares the ones and reads the others.

    Parameters
    ----------
    name : str
        Of the exported file.
    format : str
        "onnx" or "torch".
    facts : mapping
        What the file says of itself.
    """
    code = PREPARE.format(
        imports=f"import {PACKAGES[format]}",
        open=OPEN[format].format(name=json.dumps(name)),
        run=RUN[format],
        normalize=NORMALIZE[facts["normalization"]],
    )
    ports = "\n".join(f"| `{port}` | {facts[port]} |" for port in ("frames", "log_mel", "response", "audio_embedding"))
    return (
        f"| | |\n| --- | --- |\n{ports}\n\nn is any number of clips. The settings that the code below reads are in the file "
        f"itself. It needs {PACKAGES[format]}, librosa and Pillow, and not soundspot:\n\n```python\n{code}\n```"
    )
