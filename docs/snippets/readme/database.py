from mks_hardening.db import fingerprint, hardened_engine

engine = hardened_engine("sqlite://", workers=2, threads=4)  # no wait without an end, no value in a log
with engine.connect() as connection:
    print(connection.exec_driver_sql("SELECT 1").scalar())
print(fingerprint("SELECT * FROM a WHERE id = 7") == fingerprint("select * from a where id=42"))
# -> 1
# -> True
