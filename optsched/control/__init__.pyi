"""The names meant for others; a module is imported when a name of it is used."""

from .budget import Budget as Budget, BudgetSolution as BudgetSolution, solve_budget as solve_budget
from .certificate import Certificate as Certificate
from .problem import Problem as Problem
from .solution import Solution as Solution
from .task import Iterate as Iterate, Method as Method, Task as Task
