"""`python -m metaformer_ablate`: the `ablate` command of the interpreter that is named."""

from metaformer_ablate.cli.main import main

if __name__ == "__main__":  # worker processes load this file, too
    main()
