import base64
import copy
import re

import pytest
from comparison_sample import NOTE, TOO_SMALL, make_comparison, make_tables, set_verdicts
from html_page import Page

from medmtl.experiment.plan.arms import ARMS
from medmtl.quantity import Quantity
from medmtl.report.compare.latex import escaped, latex_table
from medmtl.report.compare.page import headline, p_value, write_pages
from medmtl.report.compare.reading import with_interval

BUDGET = "600 optimizer steps of 4 patches a model, pre-training included"
MINUS = "\N{MINUS SIGN}"


def latex_rows(table):
    """The cells of every line of a LaTeX table."""
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
    return [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in body.splitlines() if line.endswith(r"\\")]


@pytest.fixture(scope="module")
def sample():
    made = make_comparison()
    made["refused"] = [{"task": "SpleenCT", "a": "transfer", "b": "dedicated", "reason": "patch sizes differ"}]
    for row in (made["tasks"]["SpleenCT"], made["mean"]):
        row["pairs"] = [pair for pair in row["pairs"] if (pair["a"], pair["b"]) != ("transfer", "dedicated")]
    made["missing"] = ["no run of transfer, seed 1"]
    made["notes"] = ["one seed only"]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample):
    folder = tmp_path_factory.mktemp("compare")
    tables = {"band": make_tables(tuple(sample["arms"]), tuple(sample["tasks"]))}
    assert write_pages(sample, tables, folder) == folder / "compare.html"
    return folder


def test_a_comparison_is_a_page_a_latex_table_and_figures(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["compare.html", "compare.tex", "figures"]
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    forests = {"forest-dice", "forest-hd95_mm", "forest-ace_band"}
    assert drawn == {"arm-means", "learning-curves", "reliability-band"} | forests
    page = Page((folder / "compare.html").read_text())
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    embedded = {base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images}
    assert embedded == {path.read_bytes() for path in (folder / "figures").iterdir()}
    assert all(image["alt"] for image in images)


def test_the_page_holds_every_number_of_the_comparison(folder, sample):
    page = Page((folder / "compare.html").read_text())
    cells = set(page.cells)
    digits = {"hd95_mm": 2, "asd_mm": 2}
    for row in (*sample["tasks"].values(), sample["mean"]):
        for arm in sample["arms"]:
            for metric, value in row["arms"][arm].items():
                mean, low, high = (f"{value[key]:.{digits.get(metric, 3)}f}" for key in ("mean", "low", "high"))
                assert f"{mean} [{low}, {high}]" in cells
        for pair in row["pairs"]:
            assert pair["verdict"] in cells
            assert p_value(pair["p_holm"]) in cells
            shown = f"{pair['difference']:+z.{digits.get(pair['metric'], 3)}f}".replace("-", MINUS)
            assert any(cell.startswith(f"{pair['verdict']} {shown} [") for cell in cells)
    for run in sample["runs"]:
        assert {run["name"], run["fingerprint"]} <= cells


def test_what_was_not_compared_the_budget_and_the_data_note_are_said_aloud(folder, sample):
    page = Page((folder / "compare.html").read_text())
    assert headline(sample) in page.words
    for said in ("1 refused, 1 missing", "patch sizes differ", "no run of transfer, seed 1", "one seed only"):
        assert said in page.words
    tables = sum(tag == "table" for tag, _ in page.tags)
    captions = [attributes for tag, attributes in page.tags if tag == "p" and attributes.get("class") == "caption"]
    assert len(captions) == tables - 1  # the table of runs stands under its own title
    figures = sum(tag == "figcaption" for tag, _ in page.tags)
    assert page.words.count(NOTE) == 1 + figures + len(captions) - 1  # the caption of what was refused has no data
    assert page.words.count(BUDGET) >= figures + len(captions) - 1
    for word in ("better", "worse", "no evidence", TOO_SMALL):
        assert word in page.words


def test_the_page_says_how_far_its_intervals_and_tests_go(folder):
    words = Page((folder / "compare.html").read_text()).words
    for said in (
        "95 % expanded percentile bootstrap by patient (Hesterberg 2015)",
        "with 2, 3 or 4 patients they cover about 50, 75 and 88 %, not 95 %",
        "The test is about whether patients agree in sign (a rank test by patient)",
        "the interval is of the mean over these tasks, weighted equally",
        "Better or worse needs both.",
        "The corrected p-value is at most 0.05, the interval excludes 0, and both favour the first-named arm.",
        "differences are of the same test cases",
        "An empty segmentation counts with the length of the volume's diagonal.",
    ):
        assert said in words
    assert words.count("Filled: the verdict is better or worse; open: no evidence.") == 3  # once a forest
    assert "Filled: the corrected p-value" not in words
    assert "arms are compared on the same test cases" not in words


@pytest.mark.usefixtures("undrawn")
def test_the_page_explains_both_notions_of_budget_and_names_the_one_in_use(tmp_path, folder):
    steps = Page((folder / "compare.html").read_text())
    assert "same number of optimizer steps, pre-training included, so that a multi-task model of N tasks" in steps.words
    assert "same number of patches of each task that it is tested on" in steps.words
    assert "steps (here)" in steps.words
    assert "samples (here)" not in steps.words
    assert "steps of this run (pre-training not included)" in steps.cells
    made = make_comparison(("dedicated", "multitask"), {"A": 4}, ())
    made["budget"] = {"notion": "samples", "text": "2,400 patches of each task"}
    samples = Page(write_pages(made, {}, tmp_path).read_text()).words
    assert "samples (here)" in samples
    assert "steps (here)" not in samples


def test_sizes_are_said_to_be_the_most_cases_that_a_task_trains_on(folder):
    page = Page((folder / "compare.html").read_text())
    for size in (2, 4, 8):
        assert page.words.count(f"At most {size} training cases a task") == 1
        assert page.words.count(f", with at most {size} training cases a task.") == 3 * 3  # tables of a main metric
    assert "rained on 8 cases" not in page.words
    assert "Validation and test cases are the same at every size" in page.words
    assert "the tasks that transfer is pre-trained on have the same limit" in page.words
    assert "training cases a task, at most" in page.cells


@pytest.mark.usefixtures("undrawn")
def test_without_small_training_sets_the_page_is_silent_about_them(tmp_path):
    page = Page(write_pages(make_comparison(("dedicated", "multitask"), {"A": 4}, ()), {}, tmp_path).read_text())
    assert "Validation and test cases are the same" not in page.words


@pytest.mark.usefixtures("undrawn")
def test_a_difference_that_does_not_exist_is_no_evidence_and_says_nothing_of_few_patients(tmp_path):
    made = nulls(make_comparison(("dedicated", "multitask"), {"A": 1, "B": 4}, ()))
    page = Page(write_pages(made, {}, tmp_path).read_text())
    verdicts = [cell for cell in page.cells if cell.startswith("no evidence")]
    rows, metrics = 3, 7
    assert sorted(verdicts) == ["no evidence"] * rows * metrics + ["no evidence \N{EN DASH}"] * rows * metrics
    assert "A dash means that the difference is undefined" in page.words
    assert "too small" not in headline(made)
    assert "all tasks" not in headline(made)


def test_the_page_needs_nothing_but_itself(folder):
    page = Page((folder / "compare.html").read_text())
    assert page.pictures
    assert page.alone


def test_the_latex_table_has_a_row_an_arm_of_a_task_and_equal_columns(sample):
    table = latex_table(sample)
    bare = re.sub(r"\\[{}]", "", table)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"\\begin\{", table)) == len(re.findall(r"\\end\{", table)) == 2
    rows = latex_rows(table)
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", table)[1])
    assert {len(row) for row in rows} == {columns}
    assert len(rows) == 1 + 3 * (len(sample["tasks"]) + 1)
    value = sample["tasks"]["HippocampusMR"]["arms"]["dedicated"]["dice"]
    assert f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in rows[1][2]
    caption = re.search(r"\\caption\{(.*)\}", table)[1]
    for said in (
        *(BUDGET, "n = 4 to 26", "1 seed", NOTE),
        r"95 \% expanded percentile bootstrap by patient (Hesterberg 2015)",
        r"with 2, 3 or 4 patients they cover about 50, 75 and 88 \%, not 95 \%",
        "differences are of the same test cases",
        "an empty prediction counts as the volume's diagonal",
        "an interval of the difference that excludes 0",
    ):
        assert said in caption


def test_the_latex_caption_mentions_in_one_sentence_that_something_is_missing(sample):
    said = "Runs that are missing or left out are named in compare.json."
    assert latex_table(sample).count(said) == 1
    assert latex_table({**sample, "missing": ["one thing", "another"]}).count(said) == 1
    assert said not in latex_table({**sample, "missing": []})


def test_latex_is_bold_only_where_an_arm_is_better_than_every_other():
    def bold(first, second):
        made = make_comparison(patients={"Spleen": 9}, sizes=())
        for pair in made["tasks"]["Spleen"]["pairs"]:
            pair["verdict"] = "no evidence"
        set_verdicts(made, "multitask", "dedicated", {"Spleen": first})
        set_verdicts(made, "multitask", "transfer", {"Spleen": second})
        return [row[1].strip() for row in latex_rows(latex_table(made)) if "textbf" in row[2]]

    assert bold("better", "better") == ["multi-task training"]
    assert bold("better", "no evidence") == []
    assert bold("worse", "worse") == []  # dedicated and transfer beat multi-task training, but not each other

    two = make_comparison(("dedicated", "multitask"), {"Spleen": 9}, ())
    set_verdicts(two, "multitask", "dedicated", {"Spleen": "worse"})
    assert [row[1].strip() for row in latex_rows(latex_table(two)) if "textbf" in row[2]] == ["dedicated training"]


def test_latex_commands_in_names_are_escaped():
    assert escaped(r"a_b & 5 % of $x \{~^#") == (
        r"a\_b \& 5 \% of \$x \textbackslash{}\{\textasciitilde{}\textasciicircum{}\#"
    )
    assert escaped("[x]") == "{}[x]"  # not the option of the line's end before it
    assert escaped("two\n\nlines") == "two lines"
    rows = latex_rows(latex_table(make_comparison(patients={"a & b_c": 9, "[d]": 9}, sizes=())))
    assert {len(row) for row in rows} == {5}


@pytest.mark.usefixtures("undrawn")
def test_names_from_the_data_are_escaped_in_the_page(tmp_path):
    made = make_comparison(("dedicated", "multitask"), {"<b>bold</b>": 3, "{{ 1 + 1 }}": 4}, ())
    made["experiment"], made["missing"] = "<script>", ["<em>gone</em>"]
    page = Page(write_pages(made, {}, tmp_path).read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "em" not in {tag for tag, _ in page.tags}
    assert "<b>bold</b>" in page.words
    assert "{{ 1 + 1 }}" in page.words


def nulls(made):
    for block in (made, *made["sizes"].values()):
        for row in (*block["tasks"].values(), block["mean"]):
            for metrics in row["arms"].values():
                for value in metrics.values():
                    value.update(mean=None, low=None, high=None, n=0, undefined=3)
            for pair in row["pairs"]:
                pair.update(dict.fromkeys(set(pair) - {"a", "b", "metric", "n"}), verdict="no evidence")
    return made


@pytest.mark.parametrize("odd", ["one arm", "one patient", "nulls", "no runs", "only sizes", "no budget"])
def test_odd_comparisons_give_a_page_too(tmp_path, odd):
    made = make_comparison(
        **{
            "one arm": {"arms": ("dedicated",), "sizes": ()},
            "no runs": {"arms": (), "patients": {}, "sizes": ()},
            "only sizes": {"patients": {"A": 1, "B": 4}, "sizes": (1, 4)},
        }.get(odd, {"arms": ("dedicated", "multitask"), "patients": {"A": 1, "B": 4}, "sizes": (1,)})
    )
    if odd == "one patient":
        for value in made["tasks"]["A"]["arms"]["dedicated"].values():
            value.update(low=None, high=None)
    if odd == "nulls":
        nulls(made)
    if odd == "only sizes":
        made.update(tasks={}, mean={"arms": {}, "pairs": []})
    if odd == "no budget":
        made["budget"] = None
    page = Page(write_pages(made, {}, tmp_path).read_text())
    assert page.open == []
    assert "None" not in page.words
    assert "nan" not in page.words.lower().split()
    assert not list(tmp_path.glob("figures/reliability*"))
    assert (tmp_path / "figures" / "learning-curves.png").exists() == bool(made["sizes"])
    if odd == "no budget":
        assert "Budgets differ between the runs" in page.words


@pytest.mark.usefixtures("undrawn")
def test_a_second_comparison_replaces_the_figures_of_the_first(tmp_path):
    write_pages(make_comparison(("dedicated", "multitask"), {"A": 3}, (4,)), {}, tmp_path)
    write_pages(make_comparison(("dedicated",), {"A": 3}, ()), {}, tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["arm-means.png"]


def test_the_same_comparison_gives_the_same_files(tmp_path):
    made = make_comparison(("dedicated", "multitask"), {"A": 9}, (4,))
    before = copy.deepcopy(made)
    for name in ("first", "second"):
        write_pages(made, {"band": make_tables(("dedicated", "multitask"), ("A",))}, tmp_path / name)
    assert made == before
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 8
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)


def test_the_headline_counts_the_verdicts_on_dice():
    def of(verdicts):
        made = make_comparison(("dedicated", "multitask"), dict.fromkeys(verdicts, 9), ())
        made["mean"]["pairs"] = []
        set_verdicts(made, "multitask", "dedicated", verdicts)
        return headline(made)

    assert of({"A": "better", "B": "worse", "C": "worse", "D": TOO_SMALL, "E": TOO_SMALL}) == (
        "Against dedicated training, multi-task training was better in Dice on 1 of 5 tasks, worse on 2; on the other "
        "2 there is no evidence (n too small on 2)."
    )
    assert of({"A": "worse", "B": "no evidence"}) == (
        "Against dedicated training, multi-task training was worse in Dice on 1 of 2 tasks; on the other one there is "
        "no evidence."
    )
    assert of({"A": "better", "B": "better"}) == (
        "Against dedicated training, multi-task training was better in Dice on all 2 tasks."
    )
    assert of({"A": "no evidence", "B": TOO_SMALL}) == (
        "Against dedicated training, there is no evidence that multi-task training was better or worse in Dice on any "
        "of 2 tasks (n too small on 1)."
    )
    assert of({"A": TOO_SMALL}) == (
        "Against dedicated training, there is no evidence that multi-task training was better or worse in Dice on A (n "
        "too small)."
    )
    assert of({"A": "better"}) == "Against dedicated training, multi-task training was better in Dice on A."


def test_the_headline_ends_with_the_verdict_over_all_tasks():
    def of(verdict, difference, task):
        made = make_comparison(("dedicated", "multitask"), {"A": 9, "B": 9}, ())
        next(pair for pair in made["mean"]["pairs"] if pair["metric"] == "dice")["difference"] = difference
        set_verdicts(made, "multitask", "dedicated", {"A": task, "B": task, "mean": verdict})
        return headline(made).removeprefix("Against dedicated training, ")

    better = "multi-task training was better in Dice on all 2 tasks"
    none = "there is no evidence that multi-task training was better or worse in Dice on any of 2 tasks"
    assert of("worse", -0.0349, "better") == f"{better}; over all tasks it was worse ({MINUS}0.035)."
    assert of("better", 0.02, "no evidence") == f"{none}; over all tasks it was better (+0.020)."
    assert of("no evidence", 0.004, "better") == f"{better}; over all tasks there is no evidence (+0.004)."
    assert of("no evidence", 0.004, "no evidence") == f"{none}, nor over all tasks (+0.004)."
    assert of(TOO_SMALL, 0.004, "better") == (f"{better}; over all tasks there is no evidence (+0.004, n too small).")
    assert of(TOO_SMALL, 0.004, TOO_SMALL) == f"{none} (n too small on 2), nor over all tasks (+0.004, n too small)."
    assert of("no evidence", None, "better") == f"{better}."


def test_the_headline_of_one_task_has_nothing_to_say_of_all_tasks():
    assert "all tasks" not in headline(make_comparison(("dedicated", "multitask"), {"A": 9}, ()))


def test_the_headline_tells_all_pairs_where_neither_multi_task_training_nor_plain_transfer_was_compared():
    def starts(*arms):
        return re.findall(r"Against ([^,]+), ", headline(make_comparison(arms, {"A": 9}, ())))

    assert starts("dedicated", "multitask_finetune") == ["dedicated training"]
    assert starts("dedicated", "transfer_decoder", "transfer_head") == [
        *("dedicated training", "dedicated training", "transfer (decoder only)"),
    ]
    made = make_comparison(("dedicated", "multitask_finetune"), {"A": 9}, ())
    set_verdicts(made, "multitask_finetune", "dedicated", {"A": "worse"})
    assert headline(made) == "Against dedicated training, multi-task with fine-tuning was worse in Dice on A."


def test_the_headline_speaks_of_the_pairs_of_multi_task_training_and_of_transfer(sample):
    text = headline(sample)
    starts = ("Against dedicated training, ", "Against transfer, ", "Against dedicated training, ")
    places = [text.index(start) for start in starts[:2]]
    assert places == sorted(places)
    assert text.count("Against ") == 3
    assert text.endswith("Not compared: SpleenCT.")
    assert headline(make_comparison(tuple(ARMS), {"A": 9}, ())).count("Against ") == 7


def test_the_headline_says_when_nothing_could_be_compared():
    assert headline(make_comparison(("dedicated",), {"A": 9}, ())) == "Only dedicated training was tested."
    made = make_comparison(("dedicated", "multitask"), {"A": 9}, ())
    made["tasks"]["A"]["pairs"] = []
    assert headline(made) == "No two arms could be compared."
    assert "No finished run" in headline(make_comparison((), {}, ()))


def test_numbers_are_written_with_a_sign_a_dash_or_an_interval():
    value = {"mean": 0.5, "difference": -0.0004, "low": -0.1, "high": None}
    dice, distance = Quantity("dice", "Dice"), Quantity("hd95_mm", "HD95", "mm", digits=2)
    assert with_interval(value, dice) == "0.500"
    assert with_interval(value, dice, "difference") == "+0.000"
    value["high"] = 0.25
    assert with_interval(value, distance) == f"0.50 [{MINUS}0.10, 0.25]"
    assert with_interval({**value, "mean": None}, dice) == p_value(None) == "\N{EN DASH}"
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.05) == "0.050"
