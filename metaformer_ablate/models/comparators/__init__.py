"""Models of other papers, as rows beside the MetaFormer."""
