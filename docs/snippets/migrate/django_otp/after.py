from base64 import b32encode, b64decode

from mks_hardening.security import MemoryTwoFactorStore, PasswordHasher, SecretBox, TwoFactorManager

store = MemoryTwoFactorStore()  # SQLAlchemyTwoFactorStore(engine) or RedisTwoFactorStore(url)
manager = TwoFactorManager(
    store,
    issuer="Knowledge",
    secret_box=SecretBox(SecretBox.generate_key()),  # in production from MKS_SECRET_KEYS
)
hasher = PasswordHasher()


def check(user, code):
    return bool(manager.verify(str(user.pk), code))


def move(devices):
    """Adopts confirmed TOTP devices, also while people sign in. Returns the users who have to enrol again."""
    left = []
    for device in devices:
        usual = (device.step, device.t0, device.digits) == (30, 0, 6) and len(device.bin_key) >= 16
        if usual:
            secret = b32encode(device.bin_key).decode()
            manager.adopt_secret(str(device.user_id), secret, last_step=device.last_t)
        else:
            left.append(device.user_id)
    return left


def password_form(encoded):
    """A password as Django stores it, in the form that PasswordHasher reads; nobody has to choose a new one."""
    scheme, _, rest = encoded.partition("$")
    if scheme in ("pbkdf2_sha256", "pbkdf2_sha1"):
        rounds, salt, digest = rest.split("$")
        return f"pbkdf2:{scheme.removeprefix('pbkdf2_')}:{rounds}${salt}${b64decode(digest).hex()}"
    if scheme == "scrypt":
        cost, salt, block, lanes, digest = rest.split("$")
        return f"scrypt:{cost}:{block}:{lanes}${salt}${b64decode(digest).hex()}"
    if scheme == "argon2":
        return f"${rest}"
    raise ValueError(f"{scheme} is not carried over: let its owner reset the password")
