"""TopoNav: explore an unknown place, build a topological map, choose where to go next."""
