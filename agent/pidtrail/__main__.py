"""
Where `pidtrail` and `python -m pidtrail` begin.

Until the command line is loaded, which takes a tenth of a second, Ctrl-C ends it as it ends any
program: without a word.
"""

import signal


def main() -> None:
    """Load the command line and run it; never returns."""
    # Ignored by who started us in the background: then it stays ignored.
    heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pidtrail.cli import main as run  # noqa: PLC0415 (see above)

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
