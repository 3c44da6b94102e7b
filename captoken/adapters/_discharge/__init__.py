"""Behind the adapters of discharges: `discharge_client` and `discharge_service`.

protocol       what travels between the two
waiting        requests that wait to be decided
approval_page  what a person sees who decides
"""
