from fastapi import FastAPI, Request
from guard import SecurityConfig, SecurityDecorator, SecurityMiddleware
from guard_core.models import BehaviorRuleConfig

config = SecurityConfig(
    trusted_proxies=["10.0.0.0/8"],
    trust_x_forwarded_proto=True,
    enforce_https=True,
    rate_limit=5,
    rate_limit_window=60,
    blacklist=["203.0.113.0/24"],
    global_behavior_rules=[
        BehaviorRuleConfig(
            rule_type="return_pattern", pattern="status:404", threshold=2, window=60, action="ban"
        )
    ],
    enable_cors=True,
    cors_allow_origins=["https://shop.example.com"],
    cors_allow_headers=["X-Basket"],
    enable_redis=False,
    enable_penetration_detection=False,
)
guard = SecurityDecorator(config)
app = FastAPI()
app.state.guard_decorator = guard
app.add_middleware(SecurityMiddleware, config=config)


@app.get("/search")
async def search(): ...


@app.post("/sign-in")
@guard.rate_limit(requests=2, window=60)
async def sign_in(): ...


@app.post("/notes")
@guard.max_request_size(1000)
async def notes(request: Request):
    return len(await request.body())
