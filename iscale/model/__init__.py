"""The imputation model: from the features of superpixels to expected counts, learnt from the discs of spots.

``fit`` (:mod:`iscale.model.fit`) trains a recipe and gives an :class:`iscale.model.ensemble.Ensemble`, which predicts.
Recipes are modules with the same functions (:class:`iscale.model.ensemble.Recipe`): :mod:`iscale.model.published` is
the network and loss of the paper; :mod:`iscale.model.default` is ours.
"""
