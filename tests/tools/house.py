"""A private quantd in a temporary folder, for tests and benches that use the product as a user would.

    with House(DAEMON, WORKER, QUANTCTL) as house:
        house.add(gguf)
        house.start()
        opened = house.ctl("open", "tiny", "--scheme", "q8_0")
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

CONF = """[daemon]
worker = {worker}
[watch]
quiet = {quiet}
[cache]
keep_free = 16M
{more}
[root models]
path = {folder}/models
"""


# The shadow memory of a sanitizer fits no ceiling, and its system calls no filter.
SANITIZED = bool(os.environ.get("QUANTD_TEST_SANITIZED"))
SANITIZED_CONF = "[jobs]\nsandbox = off\nmemory = 0\ncalibration_memory = 0\n" if SANITIZED else ""


class Failed(Exception):
    """quantctl said no: .status is its exit code, .text what it said."""

    def __init__(self, status, text):
        super().__init__(f"exit {status}: {text}")
        self.status = status
        self.text = text


class House:
    def __init__(self, daemon, worker, quantctl, quiet="100ms", more="", folder=None):
        self.daemon, self.worker, self.quantctl = (os.path.abspath(p) for p in (daemon, worker, quantctl))
        self.given_folder = folder
        self.quiet, self.more = quiet, more
        self.process = None

    def __enter__(self):
        self.folder = self.given_folder or tempfile.mkdtemp(prefix="quantd-test.")
        for name in ("models", "run", "state", "cache", "config/quantd"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        os.chmod(self.path("run"), 0o700)
        self.env = {k: v for k, v in os.environ.items() if k not in ("QUANTD_SOCKET", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")}
        self.env.update({f"XDG_{name}": self.path(folder) for name, folder in
                         (("RUNTIME_DIR", "run"), ("STATE_HOME", "state"), ("CACHE_HOME", "cache"), ("CONFIG_HOME", "config"))})
        self.configure()
        return self

    def __exit__(self, *_):
        self.kill()
        if not self.given_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def configure(self, more=None):
        with open(self.path("config", "quantd", "quantd.conf"), "w") as f:
            f.write(CONF.format(worker=self.worker, folder=self.folder, quiet=self.quiet, more=(self.more if more is None else more) + SANITIZED_CONF))

    def add(self, source, name=None):
        """Puts a file or folder of a model into the watched folder, whole at once."""
        target = self.path("models", name or os.path.basename(source))
        part = self.path("models", ".adding")
        shutil.rmtree(part, ignore_errors=True)
        (shutil.copytree if os.path.isdir(source) else shutil.copyfile)(source, part)
        os.rename(part, target)
        return target

    def start(self, wait=True, launcher=(), options=("--user",), pass_fds=()):
        """Starts the daemon; with @wait, returns when it answers."""
        with open(self.path("quantd.log"), "ab") as log:
            self.process = subprocess.Popen([*launcher, self.daemon, *options], env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            pass_fds=pass_fds)
        if wait:
            self.until("the daemon answers", lambda: self.ctl("status"))
        return self.process

    def log(self):
        with open(self.path("quantd.log"), errors="replace") as f:
            return f.read()

    def kill(self, with_signal=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.wait(20)
        self.process = None

    def stop(self):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self.process = None
        return status

    def ctl(self, *args, check=True, timeout=120):
        """What `quantctl --json ARGS` answers; Failed when it exits with another code than 0."""
        done = subprocess.run([self.quantctl, args[0], "--json", *args[1:]], env=self.env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise Failed(done.returncode, done.stderr.strip())
        return json.loads(done.stdout) if done.stdout.strip() else None

    def status_of(self, *args):
        """Only the exit code."""
        return subprocess.run([self.quantctl, *args], env=self.env, capture_output=True, timeout=120).returncode

    def until(self, what, is_true, seconds=15):
        """Waits for something that returns a true value; the last exception is the reason when it never does."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                found = is_true()
                if found:
                    return found
            except Exception as e:  # tried again until the time is up
                last = e
            if self.process and self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"waited in vain until {what}: {last}\n{self.log()[-2000:]}")

    def until_ready(self, model):
        self.until(f"'{model}' is ready", lambda: [m for m in self.ctl("models")["models"] if m["name"] == model and m["state"] == "ready"])

    def objects(self):
        """[(path, bytes)] of the store's objects, largest first."""
        found = []
        for folder, _, names in os.walk(self.path("cache", "quantd", "objects")):
            found += [(os.path.join(folder, n), os.path.getsize(os.path.join(folder, n))) for n in names]
        return sorted(found, key=lambda x: -x[1])
