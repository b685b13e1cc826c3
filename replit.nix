# Nothing from Nix is needed: Python comes with the module named in .replit. A second Python here would shadow it.
{ pkgs }: {
  deps = [ ];
}
