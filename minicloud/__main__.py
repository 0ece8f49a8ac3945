"""`python -m minicloud` and the `minicloud` script: the command line's way in."""


def main() -> None:
    """Run the command line (click handles arguments and exit codes)."""
    from minicloud.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
