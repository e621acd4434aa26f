"""The compiler runs where torch is not installed."""

import subprocess
import sys
from pathlib import Path

from tests.compile.toy import Run

WITHOUT = "import sys; sys.modules['torch'] = None; from compile.{0} import main; sys.exit(main())"


def test_build_and_verify_need_no_torch(copy: Run, repository: Path) -> None:
    for command, arguments in (("build", copy.build_arguments()), ("verify", copy.verify_arguments())):
        line = [sys.executable, "-c", WITHOUT.format(command), *arguments]
        done = subprocess.run(line, cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
