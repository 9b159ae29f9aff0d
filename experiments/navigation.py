"""The table of point navigation, ``experiments.tables.navigation``, under the name by which its committed result was
measured."""

from experiments.tables.navigation import main

if __name__ == "__main__":
    main()
