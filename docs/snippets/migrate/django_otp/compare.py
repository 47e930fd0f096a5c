import time

import after
import before  # sets Django up, so that its models can be imported below
from django.contrib.auth.models import User
from django.core.management import call_command

from mks_hardening.security import totp_code

call_command("migrate", verbosity=0)
tanaka, sato = (User.objects.create_user(name, password="坂の上の足場 三本") for name in ("tanaka", "sato"))
devices = [before.TOTPDevice.objects.create(user=user) for user in (tanaka, sato)]


def code(device, steps=0):
    return totp_code(after.b32encode(device.bin_key).decode(), at=time.time() + 30 * steps)


used = code(devices[0])
print("django-otp accepts a code:", before.check(tanaka, used))
print("and once more:", before.check(tanaka, used))
full_width = code(devices[1]).translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"})
print("and one in full-width digits:", before.check(sato, full_width))
before.TOTPDevice.objects.filter(user=sato).update(last_t=-1)
print("its table shows secrets:", bytes.fromhex(devices[0].key) == devices[0].bin_key)

print("have to enrol again:", after.move(before.TOTPDevice.objects.filter(confirmed=True)))
print("the code that django-otp accepted:", after.check(tanaka, used))
print("the next one, of the same app:", after.check(tanaka, code(devices[0], steps=1)))
print("one in full-width digits:", after.check(sato, full_width))
print("and as an app shows it:", after.check(sato, code(devices[1])))
stored = after.store.load(str(tanaka.pk)).data
print("the store shows secrets:", after.b32encode(devices[0].bin_key) in stored)
form = after.password_form(tanaka.password)
print("the password of Django:", after.hasher.verify("坂の上の足場 三本", form))
print("is rehashed after the next sign-in:", after.hasher.needs_rehash(form))
