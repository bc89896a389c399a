"""What a person sees while a step runs: on a terminal its name, time, and rates; in a log lines; nothing is left behind."""

import io

from rich.console import Console

from sidlake.pipelines.progress import Progress


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)


def test_a_step_that_tracks_nothing_shows_its_name_and_time():
    console = terminal()
    with Progress(console).running("fit"):
        pass
    assert "fit" in console.file.getvalue()
    assert "0:00:00" in console.file.getvalue()


def test_what_a_step_tracks_shows_how_much_is_done_of_how_much():
    console = terminal()
    progress = Progress(console)
    with progress.running("embed_text"), progress.track("texts") as update:
        update(10, 2000)
        update(1500, 2000)
        progress._bars.refresh()
    assert "1,500 of 2,000" in console.file.getvalue()


def test_lines_said_meanwhile_stay_and_the_display_goes():
    console = terminal()
    progress = Progress(console)
    with progress.running("assign"):
        progress.say("assign            0.3 s")
    assert "assign            0.3 s" in console.file.getvalue()
    assert console.file.getvalue().endswith(("\x1b[2K", "\x1b[?25h", "\n")) or "\x1b[1A\x1b[2K" in console.file.getvalue()


def test_a_failing_step_gives_the_terminal_back():
    console = terminal()
    progress = Progress(console)
    for _ in range(2):  # a second display would be refused while the first is live
        try:
            with progress.running("check"), progress.track("rows") as update:
                update(1, 2)
                raise ValueError
        except ValueError:
            pass
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is shown again


def test_without_a_terminal_there_are_lines_and_no_escapes():
    console = Console(file=io.StringIO(), force_terminal=False)
    progress = Progress(console)
    with progress.running("check"), progress.track("rows") as update:
        update(1, 2)
        progress.say("done")
    assert console.file.getvalue() == "done\n"
