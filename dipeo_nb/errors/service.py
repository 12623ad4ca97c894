"""Errors of something outside this package."""

from __future__ import annotations

from dipeo_nb.errors.base import DipeoError


class ServiceError(DipeoError):
    """Something outside this package failed."""

    code = "service_error"


class StorageError(ServiceError):
    """A file, blob or database operation failed; `operation` names it."""

    code = "storage_error"
    operation: str | None = None


class EventBusError(ServiceError):
    """Events could not be passed on; the run store has them. `cause`: invalid, unavailable, overflow or closed."""

    code = "event_bus_error"


class IntegrationError(ServiceError):
    """A web service refused, failed or could not be reached; `status` is its HTTP answer, when there was one."""

    code = "integration_error"
    status: int | None = None


class ProviderAuthError(IntegrationError):
    """The provider refuses the key: it is wrong, expired, or lacks a permission."""

    code = "provider_auth"


class ProviderNotFoundError(IntegrationError):
    """The provider has nothing of that name or id."""

    code = "provider_not_found"


class ProviderRateLimitError(IntegrationError):
    """Too many calls; `retry_after` in seconds when the provider said so."""

    code = "provider_rate_limit"
    retry_after: float | None = None


class ProviderRejectedError(IntegrationError):
    """The provider refuses the request as it is; `provider_code` is its own name for the reason."""

    code = "provider_rejected"
    provider_code: str | None = None


class ProviderUnavailableError(IntegrationError):
    """The provider fails, or cannot be reached."""

    code = "provider_unavailable"


class UnknownOutcomeError(IntegrationError):
    """The connection was lost after a request was sent that must not be sent twice: nobody knows whether it arrived."""

    code = "unknown_outcome"


class APIKeyError(ServiceError):
    """An API key cannot be stored, read or used."""

    code = "api_key_error"


class APIKeyNotFoundError(APIKeyError):
    """No API key for that provider; the hint names the variable and the keyless way."""

    code = "api_key_not_found"
