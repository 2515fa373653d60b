# Sourced by the other scripts: a virtual environment with the project in it, made once and reused.
#
# LESSISMORE_VENV names another place than .venv; LESSISMORE_PYTHON another interpreter than python3.
VENV="${LESSISMORE_VENV:-.venv}"

find_python() {
  local candidate
  for candidate in "${LESSISMORE_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [[ -n "$candidate" ]] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "expected Python 3.11 or newer as python3, found none: install it or set LESSISMORE_PYTHON" >&2
  return 1
}

# PyTorch with its CUDA libraries takes 8 GB, what pip downloads 4 more for a while.
GIGABYTES=12

require_space() {
  local place="$VENV" free
  while [[ ! -e "$place" ]]; do place="$(dirname "$place")"; done
  free="$(df -Pk "$place" | awk 'NR == 2 {print int($4 / 1000000)}')"
  if ((free < GIGABYTES)); then
    echo "expected $GIGABYTES GB of free disk for $VENV, found $free: free some or set LESSISMORE_VENV" >&2
    return 1
  fi
}

# install_project [EXTRA]: install the project, editable, once for each state of pyproject.toml.
install_project() {
  local what="." stamp python
  [[ -n "${1:-}" ]] && what=".[$1]"
  python="$(find_python)"
  compgen -G "$VENV/.installed-*" >/dev/null || require_space
  [[ -x "$VENV/bin/python" ]] || "$python" -m venv "$VENV"
  stamp="$VENV/.installed-${1:-base}"
  if ! cmp -s pyproject.toml "$stamp"; then
    echo "== installing $what into $VENV (about two minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$what"
    cp pyproject.toml "$stamp"
  fi
  # shellcheck disable=SC1091
  source "$VENV/bin/activate"
}
