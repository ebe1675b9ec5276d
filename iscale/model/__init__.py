"""The imputation model: recipes, training, prediction, and every gene as it is read; stages ``fit`` and ``predict``.

``fit`` (:mod:`iscale.model.fit`) trains a recipe and gives an :class:`iscale.model.ensemble.Ensemble`, which predicts.
Recipes are modules with the same functions (:class:`iscale.model.ensemble.Recipe`): :mod:`iscale.model.published` is
the network and loss of the paper; :mod:`iscale.model.default` is ours.
"""
