from rewardline.core.provenance import program_files

from support.paths import ROOT

SCRIPTS = ROOT / "scripts"
TEMPLATES = {
    SCRIPTS / "rewardline" / "report" / "templates" / name
    for name in ("report.html.jinja", "macros.html.jinja", "style.css", "evaluation_card.md.jinja")
}


def test_an_edit_of_a_template_writes_the_report_and_the_card_again_and_nothing_else() -> None:
    using = {path.name for path in SCRIPTS.glob("*.py") if set(program_files(path)) & TEMPLATES}
    assert using == {"plot.py", "evaluation_card.py"}
    assert set(program_files(SCRIPTS / "plot.py")) >= TEMPLATES
