# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Clips of files: the frames at the centers of bins, exactly those, whatever the container; bad files by reason."""

import dataclasses
import io
import wave
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.processing.test_video_files import DECODERS, ROTATIONS, counting_frames, use_decoder
from turingvit_hf.processing import video_files
from turingvit_hf.processing.video_files import read_frames
from turingvit_hf.training.data.clips import ClipError, read_clip


av = pytest.importorskip("av", reason="video files need the video extra (PyAV)")

NUM_FRAMES = 45
# container, codec, options: key frames every 10 frames, with frames between that refer to later ones where there are
CODINGS = {
    "mp4": ("mpeg4", {"g": "10", "bf": "2"}),
    "mov": ("mjpeg", {}),
    "mkv": ("mpeg4", {"g": "10", "bf": "2"}),
    "avi": ("mpeg4", {"g": "10"}),
    "h264.avi": ("libx264", {"g": "10", "bf": "2"}),  # keeps no times of showing
    "h264.mp4": ("libx264", {"g": "10", "bf": "2"}),
    "ts": ("mpeg2video", {"g": "10", "bf": "2"}),
    "webm": ("libvpx-vp9", {"g": "10", "cpu-used": "8", "deadline": "realtime"}),
}


@pytest.fixture(autouse=True, params=DECODERS)
def decoder(request, monkeypatch):
    use_decoder(request.param, monkeypatch)
    return request.param


def write(path, frames, *, codec="mpeg4", options=None, rate=25, pixels="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames):
    return [round((float(frame[:, -8:, -8:].mean()) - 40) / 4) for frame in frames]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write(tmp_path_factory.mktemp("videos") / "count.mp4", counting_frames(NUM_FRAMES), options={"g": "10"})


def test_frames_are_the_bin_centers(video):
    clip = read_clip(video, num_frames=8)
    assert numbers(clip) == [2, 8, 14, 19, 25, 30, 36, 42]
    assert {(frame.shape, frame.dtype) for frame in clip} == {((3, 32, 48), np.dtype(np.uint8))}
    assert numbers(read_clip(video, num_frames=1)) == [22]


def test_paths_strings_and_bytes_are_the_same(video):
    clip = read_clip(video, num_frames=3)
    for source in (str(video), video.read_bytes()):
        assert np.array_equal(read_clip(source, num_frames=3), clip)


@pytest.mark.parametrize("ending", CODINGS)
def test_jumping_gives_the_frames_of_reading_in_order(ending, tmp_path, monkeypatch):
    codec, options = CODINGS[ending]
    path = write(tmp_path / f"count.{ending}", counting_frames(NUM_FRAMES), codec=codec, options=options)
    for chosen in ([0], [44], [9, 10, 11], [13, 28, 29, 43], [5, 38]):
        jumped, _ = read_frames(path, lambda metadata, chosen=chosen: chosen)
        with monkeypatch.context() as patch:
            patch.setattr(video_files, "_read_by_torchcodec", lambda *arguments: None)
            patch.setattr(video_files, "_read_by_time", lambda *arguments: None)
            in_order, metadata = read_frames(path, lambda metadata, chosen=chosen: chosen)
        assert metadata.frames_indices == chosen
        assert metadata.total_num_frames == NUM_FRAMES
        assert np.array_equal(jumped, in_order)
        assert numbers([frame.transpose(2, 0, 1) for frame in jumped]) == chosen


@pytest.mark.parametrize(
    ("options", "pixels"),
    [({}, "yuv420p"), ({"flags": "+ildct+ilme", "x264opts": "tff=1"}, "yuv420p"), ({}, "yuv420p10le")],
    ids=["progressive", "interlaced", "10 bits"],
)
def test_colors_do_not_depend_on_the_decoder(options, pixels, decoder, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
    path = write(tmp_path / "noise.mp4", noise, codec="libx264", options=options, pixels=pixels)
    frames, metadata = read_frames(path)
    assert metadata.video_backend == (decoder if not options and pixels == "yuv420p" else "pyav")
    use_decoder("pyav", monkeypatch)
    assert np.array_equal(frames, read_frames(path)[0])


def test_files_are_decoded_by_one_thread(video):
    with av.open(str(video)) as container:
        assert video_files._video_stream(av, container, "it").codec_context.thread_count == 1


def test_uneven_times_change_no_frame(tmp_path, decoder):
    path = tmp_path / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "10", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 32, 48, "yuv420p", 4_000_000
        for number, pixels in enumerate(counting_frames(NUM_FRAMES)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + number // 7 * 3, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, metadata = read_frames(path, lambda metadata: [0, 6, 7, 20, 44])
    assert numbers([frame.transpose(2, 0, 1) for frame in frames]) == [0, 6, 7, 20, 44]
    assert metadata.video_backend == decoder


def test_long_files_are_not_decoded_whole(tmp_path, monkeypatch):
    use_decoder("pyav", monkeypatch)
    path = write(tmp_path / "long.mp4", counting_frames(50)[np.arange(1000) // 20], options={"g": "10"})
    decoded = []
    monkeypatch.setattr(video_files, "_open", counting_open(decoded))
    read_clip(path, num_frames=4)
    assert 4 <= len(decoded) <= 4 * 10


def counting_open(decoded):
    class Counted:
        def __init__(self, source):
            self.container = av.open(str(source))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, stream):
            for frame in self.container.decode(stream):
                decoded.append(frame.pts)
                yield frame

    return lambda av, source: Counted(source)


def test_times_that_lie_make_it_read_in_order(video, monkeypatch):
    expected = read_clip(video, num_frames=4)
    of = video_files._Packets.of

    def shifted(container, stream):
        packets = of(container, stream)
        return dataclasses.replace(packets, times=[time + 1 for time in packets.times])

    monkeypatch.setattr(video_files._Packets, "of", shifted)
    assert np.array_equal(read_clip(video, num_frames=4), expected)


@pytest.mark.parametrize("num_frames", [1, 3, 7])
def test_fewer_frames_are_given_once_each(num_frames, tmp_path):
    clip = read_clip(write(tmp_path / "short.mp4", counting_frames(num_frames)), num_frames=8)
    assert numbers(clip) == list(range(num_frames))


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_a_still_is_a_clip_of_one_frame(ending, tmp_path):
    Image.new("RGB", (48, 32), (200, 40, 90)).save(tmp_path / f"still.{ending}")
    (frame,) = read_clip(tmp_path / f"still.{ending}", num_frames=8)
    assert frame.shape == (3, 32, 48)
    assert np.abs(frame.mean((1, 2)) - [200, 40, 90]).max() < 3


def test_clips_stand_upright(tmp_path):
    clockwise = 90
    upright = counting_frames(4)
    path = write(tmp_path / "turned.mp4", np.ascontiguousarray(np.rot90(upright, k=1, axes=(1, 2))))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), ROTATIONS[clockwise], strict=True):
        content[matrix + offset : matrix + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    for frame, expected in zip(read_clip(bytes(content), num_frames=4), upright, strict=True):
        assert np.abs(frame.transpose(1, 2, 0).astype(int) - expected).mean() < 6


def reason_of(source):
    with pytest.raises(ClipError) as failure:
        read_clip(source, num_frames=8)
    return failure.value.reason


def test_bad_files_have_reasons(video, tmp_path):
    assert reason_of(tmp_path / "nowhere.mp4") == "file is missing"
    content = video.read_bytes()
    for broken in (b"", b"no video at all", content[:300], content[: len(content) // 2], b"\0" * 5000):
        assert reason_of(broken) == "video cannot be read"
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(tmp_path / "folder.mp4") == "video cannot be read"

    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    assert reason_of(sound.getvalue()) == "file has no video stream"

    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    assert reason_of(tmp_path / "empty.avi") == "video has no frames"


def test_what_a_cut_file_still_holds_is_used(tmp_path):
    path = write(tmp_path / "count.ts", counting_frames(NUM_FRAMES), codec="mpeg2video", options={"g": "10"})
    content = path.read_bytes()
    clip = read_clip(content[: len(content) // 2], num_frames=4)
    assert 1 <= len(clip) <= 4
    assert numbers(clip) == sorted(set(numbers(clip)))
    assert max(numbers(clip)) < NUM_FRAMES * 2 / 3


def test_a_size_that_changes_is_refused(tmp_path):
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for number, (width, height) in enumerate([(48, 32)] * 5 + [(96, 80)] * 5):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
            encoder.time_base = Fraction(1, 25)
            frame = av.VideoFrame(width, height, "yuvj420p")
            for packet in [*encoder.encode(frame), *encoder.encode()]:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts = packet.dts = number
                container.mux(packet)
    assert reason_of(path) == "video changes its size"


def test_the_cover_of_a_piece_of_music_is_no_video():
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp2") as container:
        stream = container.add_stream("mp2", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    cover = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(cover, "PNG")
    body = b"\0image/png\0\x03\0" + cover.getvalue()
    tag = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes((len(tag) >> shift) & 127 for shift in (21, 14, 7, 0))
    music = b"ID3\x03\0\0" + size + tag + sound.getvalue()
    with av.open(io.BytesIO(music)) as container:
        assert len(container.streams.video) == 1
    assert reason_of(music) == "file has no video stream"
