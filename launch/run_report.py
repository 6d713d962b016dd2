r"""Builds the report page of a run from its folder, or one page that compares several runs.

    python -m launch.run_report runs/tiny
    python -m launch.run_report runs/a runs/b --output=comparison.html

Each RUN is a run's folder (its --workdir), of any entry point and also of a run that still goes on.
With one RUN the page is RUN/report.html, which every run writes at its end by itself; with several
it is --output. A page is one file, which needs no network and no other file.
"""

from pathlib import Path

from absl import flags

from launch.parts import runtime


def main(argv: list[str]) -> None:
    """Builds the page that the command line asks for."""
    build(argv[1:], _OUTPUT.value)


def build(folders: list[str], output: str = "comparison.html") -> Path:
    """Builds a page and returns its path.

    Args:
      folders: one folder, whose page it becomes, or several, which are compared.
      output: the file of a comparison.

    Raises:
      ValueError, OSError: in one line: no folder, one given twice, one without a run, or a damaged
        file.
    """
    from launch.parts import lock
    from launch.report import comparison, page
    from launch.report.sources import read_run
    from models.host.storage import absolute, as_path

    if not folders:
        raise ValueError(
            "no run is named: give the folder of one, or of several to compare, such as"
            " python -m launch.run_report runs/tiny"
        )
    if len(folders) == 1:
        path = page.write_page(folders[0], lock.is_held(as_path(folders[0])))
    else:
        runs = [read_run(folder) for folder in folders]
        path = absolute(output)
        live = [lock.is_held(run.path) for run in runs]
        comparison.write_comparison(path, runs, live)
    print(f"page: {path}")
    return path


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _OUTPUT = flags.DEFINE_string("output", "comparison.html", "the page of several runs")
    runtime.run_main(main, positional=True)
