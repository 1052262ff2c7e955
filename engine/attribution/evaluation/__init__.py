"""How far attributions can be trusted: LDS, calibration, effects and the verdict."""
