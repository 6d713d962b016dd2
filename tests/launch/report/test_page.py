"""The report page: what it shows of each kind of run, and that nothing in it can act."""

import html.parser
import json
import math
import re

import pytest

from launch.report import charts, page, responses, training
from launch.report.sources import read_run
from models.files import write_atomically
from reasoning.statistics import mean_with_ci
from tests.launch.report import made

SECTIONS = {
    "rl": {"Warnings", "Stages", "Learning curves", "Response length", "Samples before and after",
           "Samples while training", "Where the time went", "What ran where", "Command"},
    "r1": {"Stages", "Learning curves", "Response length", "Inference-time scaling", "Search tree",
           "Verifiers", "Samples before and after", "Samples while training",
           "Where the time went", "Command"},
    "evaluation": {"Evaluations", "Samples before and after", "Command"},
    "router": {"Router"},
    "distillation": {"Stages", "Distillation", "Response length", "Samples before and after",
                     "Where the time went"},
}  # fmt: skip
# Whatever may load or run something, or frame it.
ACTIVE = {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video", "use"}
VOID = {"meta", "link", "br", "input"}


class Seen(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def shown(text):
    return re.sub(r"\s+", " ", " ".join(Seen(text).text))


@pytest.mark.parametrize("kind", made.KINDS)
def test_each_kind_of_run_has_the_sections_that_it_has_data_for(kind, tmp_path):
    path = page.write_page(made.KINDS[kind](tmp_path))
    assert path == tmp_path.resolve() / "report.html"
    text = path.read_text()
    assert set(re.findall(r"<h2[^>]*>([^<]*)</h2>", text)) == SECTIONS[kind]
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


@pytest.mark.parametrize("kind", made.KINDS)
def test_what_a_model_wrote_is_shown_and_does_nothing(kind, tmp_path):
    text = page.write_page(made.KINDS[kind](tmp_path, made.HOSTILE)).read_text()
    seen = Seen(text)
    assert made.HOSTILE in "".join(seen.text)
    assert not ACTIVE & set(seen.tags)
    assert not [each for each in seen.attributes if each[1].startswith("on")]
    loaded = [each for each in seen.attributes if each[1] in ("src", "href", "action", "data")]
    assert loaded and all(value.startswith(("#", "data:,")) for _, _, value in loaded)
    assert "@import" not in text and "url(" not in text
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in (
        seen.attributes
    )


def test_figures_stand_in_the_page_with_interval_and_n(tmp_path):
    text = shown(page.write_page(made.rl(tmp_path)).read_text())
    for hits in (5, 15):
        figure = made.figures(hits)["math/pass@1"]
        low, high = figure["ci95"]
        assert f"{100 * figure['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "math/pass@1: 25.0" in text and "n = 32 responses a step." in text
    assert "steps 5, 9: nothing so 3" in text
    assert "python -m launch.run_rl --config=configs/gsm8k_grpo.py" in text
    assert "Complete. The last command took 1 min 15 s." in text
    assert "optimizer.learning_rate 0.001" in text and "A processor" in text


def test_intervals_of_several_seeds_are_over_seeds(tmp_path):
    run = read_run(made.r1(tmp_path))
    figure = run.stages["r1_zero"]["metrics"]["math/pass@1"]
    expected = mean_with_ci([14 / 20, 15 / 20], 2)
    assert figure["seeds"] == 2 and figure["ci95"] == pytest.approx(expected["ci95"])
    assert run.stages["base"]["wall_seconds"] == 25.0
    assert [each.seed for each in run.trainings] == ["seed_0", "seed_1"]


def test_every_chart_has_its_data_beside_it(tmp_path):
    text = page.write_page(made.rl(tmp_path)).read_text()
    figures = re.findall(r"<figure>.*?</figure>", text, re.S)
    assert len(figures) > 8
    for each in figures:
        assert "<svg" in each and 'role="img" aria-label="' in each and "<details>" in each
        rows = re.findall(r'<th scope="row">', each)
        assert rows and re.search(r'<th scope="col">', each)
    (reward,) = (f for f in figures if ">Reward</h4>" in f)
    assert len(re.findall(r'<th scope="row">rl, as logged</th>', reward)) == 60


def test_a_run_that_goes_on_says_so_and_loads_itself_anew(tmp_path):
    run = made.rl(tmp_path, done=False)
    text = page.write_page(run, live=True).read_text()
    assert '<meta http-equiv="refresh"' in text and "rl is at step 60" in shown(text)
    assert "Learning curves" in text
    text = page.write_page(run).read_text()
    assert 'http-equiv="refresh"' not in text
    assert "Not complete, and not running" in shown(text)


@pytest.mark.parametrize(
    "state, reason, told",
    [
        ("interrupted", "SIGTERM after step 2", "Interrupted (SIGTERM after step 2). The same"),
        ("failed", "no data", "The last command ended with an error: no data."),
    ],
)
def test_how_the_last_command_ended(state, reason, told, tmp_path):
    made.rl(tmp_path)
    made.record(tmp_path, state=state, reason=reason)
    assert told in shown(page.write_page(tmp_path).read_text())


def test_lines_that_are_being_written_are_left_out(tmp_path):
    made.rl(tmp_path, done=False)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with open(tmp_path / "rl" / name, "a") as file:
            file.write('{"step": 61, "rew')
    run = read_run(tmp_path)
    assert run.trainings[0].records[-1]["step"] == 60
    assert run.trainings[0].samples[-1]["step"] == 60


def test_long_files_of_samples_are_read_at_both_ends(tmp_path, monkeypatch):
    made.rl(tmp_path)
    lines = [{"step": step, "response": "x" * 50, "reward": 0} for step in range(1, 201)]
    path = tmp_path / "rl" / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for size in (1000, 10_000, 10**6):  # In parts, overlapping, whole.
        monkeypatch.setattr("launch.report.sources.SAMPLE_BYTES", size)
        steps = [each["step"] for each in read_run(tmp_path).trainings[0].samples]
        assert steps[0] == 1 and steps[-1] == 200
        assert steps == sorted(set(steps)), size
        assert len(steps) == 200 or size == 1000


def test_samples_whose_verdict_changed_come_first(tmp_path):
    cards = responses.graded_cards(read_run(made.rl(tmp_path, hits=15)))
    assert [answer.label for answer in cards[0].answers] == ["initial", "rl"]
    for card in cards:
        assert [answer.correct for answer in card.answers] == [False, True]


def test_the_tree_joins_equal_beginnings():
    paths = [
        {"steps": ["a", "b", "c"], "answer": "1", "score": 0.2, "chosen": False},
        {"steps": ["a", "b", "d"], "answer": "2", "score": 0.9, "chosen": True},
        {"steps": ["e"], "answer": None, "score": 0.4, "chosen": False},
        {"steps": ["a"], "answer": "3", "score": None, "chosen": False},
    ]
    first, second = responses.tree(paths)
    assert (first.text, first.paths, first.score, first.chosen) == ("a", 3, 0.9, True)
    (joined,) = first.children
    assert joined.text == "b" and [child.text for child in joined.children] == ["c", "d"]
    assert [child.chosen for child in joined.children] == [False, True]
    assert (second.text, second.answer, second.children) == ("e", None, [])


def test_time_is_divided_without_counting_any_of_it_twice():
    line = {"seconds/sample": 3.0, "seconds/reward": 1.0, "seconds/source": 6.0}
    parts = training.seconds_of([{"step": 4, "seconds/train": 2.0, **line}])
    assert parts["sampling"] == 3 and parts["waiting for data"] == 2 and parts["training"] == 2
    # Sampling beside the update: what was waited for is what counts.
    overlapped = training.seconds_of([{"step": 4, **line, "seconds/source": 2.0}])
    assert sum(overlapped.values()) == pytest.approx(2.0)
    # Lines of a supervised training are means over the iterations since the last line.
    lines = [{"step": s, "seconds/train": 0.5, "seconds/source": 0.0} for s in (10, 20)]
    assert training.seconds_of(lines)["training"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "low, high, log", [(0, 1, False), (-3e-7, 5e-6, False), (17, 18.5, False), (3, 9e11, True),
                       (40, 90, True), (5, 5.5, True)],
)  # fmt: skip
def test_ticks_are_few_and_within(low, high, log):
    found = charts.ticks(low, high, log)
    assert 2 <= len(found) <= 8 and found == sorted(set(found))
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in found)


def test_numbers_for_people():
    told = {
        0: "0", 1: "1", 0.25: "0.25", 12.34: "12.3", 999.6: "1000", 1234: "1234", 12345: "12.3k",
        1.5e9: "1.5G", 2e-14: "2e-14", -0.5: "-0.5", math.nan: "–", 0.001: "0.001",
    }  # fmt: skip
    assert {value: charts.short(value) for value in told} == told


def test_charts_leave_out_what_is_no_number():
    points = [charts.Point(x, y) for x, y in ((0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0))]
    figure = charts.chart("t", "x", "y", [charts.Series("s", points)])
    assert figure is not None and [row[1] for row in figure.data.rows] == ["0", "3"]
    assert "nan" not in figure.svg and "inf" not in figure.svg
    logarithmic = charts.chart("t", "x", "y", [charts.Series("s", points)], log_x=True)
    assert logarithmic is not None and len(logarithmic.data.rows) == 1
    assert charts.chart("t", "x", "y", [charts.Series("s", points[1:3])]) is None


def test_an_infinite_interval_is_not_drawn(tmp_path):
    made.rl(tmp_path)
    path = tmp_path / "rl" / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["math/pass@1"]["ci95"] = [-math.inf, math.inf]
    write_atomically(path, json.dumps(result))
    assert "75.0 " in shown(page.write_page(tmp_path).read_text())


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda at: at / "absent", "does not exist: give the folder"),
        (lambda at: at, "holds no run"),
        (lambda at: (at / "f").write_text("x") and at / "f", "is a file: give the folder"),
        (lambda at: (at / "report.json").write_text("{") and at, "report.json is damaged"),
    ],
)
def test_a_wrong_folder_is_told_in_one_line(make, told, tmp_path):
    with pytest.raises(ValueError, match=told) as error:
        page.write_page(make(tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()
