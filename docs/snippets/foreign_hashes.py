from mks_hardening.security import PasswordHasher

hasher = PasswordHasher()
django = "pbkdf2_sha256$10$salt$ewPGaGY+ORh+qUezkDKLqOCavm7OAW8NhP9bvjGMfLg="
print(hasher.can_verify(django), hasher.verify("battery staple", django), hasher.needs_rehash(django))
print(hasher.can_verify("5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8"))
