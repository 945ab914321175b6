"""Stage 09 reads the folders of other runs, so it is never up to date; it has no settings."""

NEEDS: tuple[str, ...] = ()
ALWAYS = True
PARAMETERS: dict[str, tuple[list, str]] = {
    "runs": ([], "folders under outputs/; none named: all that differ in seed alone")
}
