"""python -m tools.vectors"""

from tools.vectors import files

for path, text in files().items():
    path.write_text(text)
