# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening._core.origin.origin_of_request import request_origin as request_origin
from mks_hardening._core.origin.proxy_trust import ProxyTrust as ProxyTrust
from mks_hardening._core.origin.proxy_trust import RequestOrigin as RequestOrigin
from mks_hardening._core.request_hits import set_request_cost as set_request_cost
from mks_hardening._core.response_costs import LimitedResponse as LimitedResponse
from mks_hardening._edge.client_rules.ban_list import Ban as Ban
from mks_hardening._edge.client_rules.ban_list import BanList as BanList
from mks_hardening._edge.client_rules.ban_rule import DEFAULT_BAN_RULES as DEFAULT_BAN_RULES
from mks_hardening._edge.client_rules.ban_rule import BanRule as BanRule
from mks_hardening._edge.client_rules.client_rules import ClientRules as ClientRules
from mks_hardening._edge.concurrency.concurrency_rule import ConcurrencyRule as ConcurrencyRule
from mks_hardening._edge.cookies.cookie_policy import CookiePolicy as CookiePolicy
from mks_hardening._edge.cors.cors_policy import CORSPolicy as CORSPolicy
from mks_hardening._edge.cors.cors_policy import CORSRule as CORSRule
from mks_hardening._edge.headers.csp import ContentSecurityPolicy as ContentSecurityPolicy
from mks_hardening._edge.headers.header_policy import HeaderPolicy as HeaderPolicy
from mks_hardening._edge.headers.header_rule import HeaderRule as HeaderRule
from mks_hardening._edge.headers.hsts import HSTS as HSTS
from mks_hardening._edge.maintenance.maintenance_switch import MaintenanceSwitch as MaintenanceSwitch
from mks_hardening._edge.rate_limits.group_choice import GroupChoice as GroupChoice
from mks_hardening._edge.rate_limits.limit_keys import limit_by_address as limit_by_address
from mks_hardening._edge.rate_limits.limit_keys import limit_by_all as limit_by_all
from mks_hardening._edge.rate_limits.limit_keys import limit_by_header as limit_by_header
from mks_hardening._edge.rate_limits.limit_keys import limit_by_user as limit_by_user
from mks_hardening._edge.rate_limits.rate_limit_rule import RateLimitRule as RateLimitRule
from mks_hardening._edge.refusals import CustomResponse as CustomResponse
from mks_hardening._edge.refusals import Refusal as Refusal
from mks_hardening._edge.request_limits.request_limits import RequestLimitRule as RequestLimitRule
from mks_hardening._edge.request_limits.request_limits import RequestLimits as RequestLimits
from mks_hardening._edge.request_timeout.deadline_of_request import RequestDeadline as RequestDeadline
from mks_hardening._edge.request_timeout.deadline_of_request import request_deadline as request_deadline
from mks_hardening._edge.request_timeout.request_timeout_rule import RequestTimeoutRule as RequestTimeoutRule
from mks_hardening._edge.response_cache.cache_rule import CacheRule as CacheRule
from mks_hardening._edge.session.session_cookie import SessionCookie as SessionCookie
from mks_hardening._edge.session.session_handle import SessionHandle as SessionHandle
from mks_hardening._edge.session.session_manager import SessionManager as SessionManager
from mks_hardening._edge.session.stores.memory_store import MemorySessionStore as MemorySessionStore
from mks_hardening._edge.session.stores.redis_store import RedisSessionStore as RedisSessionStore
from mks_hardening.wsgi.client_rules import ClientRulesMiddleware as ClientRulesMiddleware
from mks_hardening.wsgi.concurrency import ConcurrencyMiddleware as ConcurrencyMiddleware
from mks_hardening.wsgi.cookies import CookiePolicyMiddleware as CookiePolicyMiddleware
from mks_hardening.wsgi.cors import CORSMiddleware as CORSMiddleware
from mks_hardening.wsgi.csrf.csrf_middleware import CSRFMiddleware as CSRFMiddleware
from mks_hardening.wsgi.environ_keys import CSP_NONCE_KEY as CSP_NONCE_KEY
from mks_hardening.wsgi.environ_keys import CSRF_TOKEN_KEY as CSRF_TOKEN_KEY
from mks_hardening.wsgi.environ_keys import DEADLINE_KEY as DEADLINE_KEY
from mks_hardening.wsgi.environ_keys import ORIGIN_KEY as ORIGIN_KEY
from mks_hardening.wsgi.environ_keys import REFUSAL_KEY as REFUSAL_KEY
from mks_hardening.wsgi.environ_keys import REQUEST_ID_KEY as REQUEST_ID_KEY
from mks_hardening.wsgi.environ_keys import ROUTE_KEY as ROUTE_KEY
from mks_hardening.wsgi.environ_keys import SESSION_KEY as SESSION_KEY
from mks_hardening.wsgi.headers.security_headers import SecurityHeadersMiddleware as SecurityHeadersMiddleware
from mks_hardening.wsgi.health import HealthMiddleware as HealthMiddleware
from mks_hardening.wsgi.maintenance import MaintenanceMiddleware as MaintenanceMiddleware
from mks_hardening.wsgi.origin.https_redirect import HTTPSRedirectMiddleware as HTTPSRedirectMiddleware
from mks_hardening.wsgi.origin.trusted_proxy import TrustedProxyMiddleware as TrustedProxyMiddleware
from mks_hardening.wsgi.rate_limit import RateLimitMiddleware as RateLimitMiddleware
from mks_hardening.wsgi.request_limits import RequestLimitsMiddleware as RequestLimitsMiddleware
from mks_hardening.wsgi.request_log.request_log_middleware import (
    RequestLoggingMiddleware as RequestLoggingMiddleware,
)
from mks_hardening.wsgi.request_timeout import RequestTimeoutMiddleware as RequestTimeoutMiddleware
from mks_hardening.wsgi.response_cache.response_cache_middleware import (
    ResponseCacheMiddleware as ResponseCacheMiddleware,
)
from mks_hardening.wsgi.session.session_middleware import SessionTimeoutMiddleware as SessionTimeoutMiddleware
