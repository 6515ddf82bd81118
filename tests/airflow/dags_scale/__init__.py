"""DAGs of the scale test, in a folder of their own: no other stage has to parse them."""

COUNT = 500
