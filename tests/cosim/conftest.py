import sys
from pathlib import Path

# Test modules import their helper by name, under every import mode and however pytest is started.
sys.path.append(str(Path(__file__).parent))
