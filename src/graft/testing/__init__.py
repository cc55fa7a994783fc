"""Contract tests for every plug-in point, and doubles, shipped so that yours can be held to what ours are.

reader.py    check_reader(reader, {name: bytes})
embedder.py  EmbedderContract          store.py  StoreContract          model.py  ModelContract
trainer.py   TrainerContract           scripted.py  ScriptedModel
claims.py    true claims -> false ones, to measure a verifier
"""
