"""Parts shared by the recipes of minicloud's guest images; `images/build` is the only caller.

Standard library only: an image must be buildable by the system's python3 before anything of minicloud is installed.
Nothing here knows what is inside an image: that is each recipe's.
"""
