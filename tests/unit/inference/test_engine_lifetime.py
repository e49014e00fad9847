import subprocess
import sys

PARENT = """
import multiprocessing, threading
from services.inference.lifetime import end_with_parent

def child():
    end_with_parent()
    print("child is here", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child).start()
"""


def test_a_process_of_the_engine_does_not_outlive_a_killed_service(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "child is here\n"
        parent.kill()
        # The child holds the same pipe: reading ends when it is gone too.
        assert parent.stdout.read() == ""


def test_the_service_itself_is_left_alone():
    script = "from services.inference.lifetime import end_with_parent; end_with_parent(); print('alive')"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "alive\n"
